"""Redis has no memory left: nothing more is accepted, and what was accepted is still answered, which makes room."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet.client.run_status import read_run
from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer.answers.answers_file import AnswersFile
from producer.bounded_queue import BoundedQueue
from producer.file_source import FileSource
from producer.options import ReadingLimits
from producer.questions.question_file import check_questions
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.sources import Source
from producer.redis_outage import RetryUntilAvailable
from producer.resume import FileRun, take_stock
from producer.sender import Sender, Sent
from producer.sender_thread import RunPlan, SenderThread
from producer.stream_source import PendingQuestion, QuestionSource, StreamSource
from tests import submissions
from tests.processes import Processes, lines_in, read_answers, wait_until
from tests.submissions import ROOMY
from wire.address import RedisAddress
from wire.keys import Keys

ROOM_BYTES = 8 * 1024 * 1024
QUESTIONS = 1000
KEYS = Keys()
WINDOW = {"BATCHFLEET_LIMITS_RUN_WINDOW": "300"}
PROMPT = "What is this? " + 20_000 * "x"


def used(client: redis.Redis) -> int:
    """Bytes of the server's memory in use."""
    found: Any = client.info("memory")
    return int(found["used_memory"])


def test_a_full_redis_empties_itself(tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """A producer fills it up to its maxmemory.

    A batcher and a worker that come then answer all, and the producer continues as there is room.
    """
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text(
        "".join(
            json.dumps({"id": f"q{number}", "question": f"{number} {PROMPT}"}) + "\n" for number in range(QUESTIONS)
        )
    )
    client.config_set("maxmemory", used(client) + ROOM_BYTES)

    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.submit(questions, answers)
        wait_until(lambda: "is out of memory" in fleet.log("producer"), "it is full")
        # To the brim, as by somebody else's data.
        client.config_set("maxmemory", used(client) - 100_000)
        fleet.batcher()
        fleet.worker()

        assert fleet.finish("producer") == 0
        assert "leads" in fleet.log("batcher")

    assert len(read_answers(answers)) == QUESTIONS


def from_file(folder: Path, prompts: list[str]) -> FileSource:
    """The questions of a file."""
    path = folder / "questions.jsonl"
    source = Source((path,))
    path.write_text("".join(f'{{"question": "{prompt}"}}\n' for prompt in prompts))
    what = FileRun("run-1", source, check_questions(source, ReadingLimits()), ReadingLimits(), "stub", {})
    with AnswersFile(folder / "answers.jsonl") as answers:
        return FileSource(what, take_stock(what, answers), answers.path)


def from_program(_: Path, prompts: list[str]) -> StreamSource:
    """Those that a program gives."""
    inbox: BoundedQueue[PendingQuestion] = BoundedQueue(len(prompts))
    for index, prompt in enumerate(prompts):
        inbox.put(PendingQuestion(ParsedQuestion(index, index, f"q{index}", prompt, None, None, {}, None, None, None)))
    return StreamSource("run-1", inbox)


class CountingSender(Sender):
    """Remembers how many questions each try had."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 (those of a sender)
        super().__init__(*arguments)
        self.sizes: list[int] = []

    def send(self, cursor: int, until: int, chunk: Sequence[ParsedQuestion | Invalid], *arguments: str) -> Sent:
        self.sizes.append(len(chunk))
        return super().send(cursor, until, chunk, *arguments)


@pytest.mark.parametrize("source_of", [from_file, from_program])
def test_fewer_are_sent_at_once_where_redis_has_room_for_few(
    source_of: Callable[[Path, list[str]], QuestionSource], tmp_path: Path, client: redis.Redis
) -> None:
    """It has never room for a whole chunk of a megabyte, and all are accepted; then chunks grow again."""
    prompts = [20_000 * "x" for _ in range(100)] + ["What is this?" for _ in range(300)]
    source, stopping, said = source_of(tmp_path, prompts), threading.Event(), list[str]()
    sender = CountingSender(client, KEYS, "run-1", {}, len(prompts), ROOMY)
    source.begin(sender.open())
    retry = RetryUntilAvailable(RedisAddress("unused"), 0.0, stopping, said.append)
    plan = RunPlan("run-1", {}, len(prompts), "stub")
    thread = SenderThread(sender, source, plan, ROOMY, retry, stopping, say=said.append, fail=lambda _: stopping.set())
    client.config_set("maxmemory", used(client) + 800_000)
    thread.start()

    def are_all_accepted() -> bool:
        # As a batcher that takes them out, and as the scripts of a fleet, without which Redis 8 keeps what ours left.
        with client.pipeline(transaction=False) as fleet:
            fleet.xtrim(KEYS.questions("stub", 0), 0, approximate=False)
            for _ in range(100):
                fleet.eval("return 1", 0)
            fleet.execute()
        return accepted(client) == len(prompts)

    wait_until(are_all_accepted, "all are accepted")
    stopping.set()
    thread.wake()
    thread.join()
    assert min(sender.sizes) < 25
    assert max(sender.sizes[-3:]) > 50


def write(questions: Path, count: int, metadata: str) -> None:
    """Questions whose prompts are small, and whose records are not, as their metadata comes back with them."""
    lines = (
        {"id": f"q{number}", "question": f"What is {number}?", "metadata": {"of": metadata}} for number in range(count)
    )
    questions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def accepted(client: redis.Redis) -> int:
    """Questions of the run `run-1` that the fleet has taken."""
    found: Any = client.hget(KEYS.run("run-1"), "accepted")
    return int(found or 0)


def test_a_producer_collects_while_redis_is_full(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """No question more is accepted, and every one that was gets its line meanwhile.

    The questions are small, so that a full Redis refuses none for its size.
    """
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write(questions, 4000, metadata=300 * "x")
    client.config_set("maxmemory", used(client) + 1024 * 1024)

    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.submit(questions, answers, "--run", "run-1")
        wait_until(lambda: "is out of memory" in fleet.log("producer"), "it is full")
        taken = accepted(client)
        client.config_set("maxmemory", 1)
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: lines_in(answers) == taken, "what was accepted is on disk")
        assert 0 < accepted(client) == taken < 4000
        client.config_set("maxmemory", 0)

        assert fleet.finish("producer") == 0

    assert lines_in(answers) == 4000


def test_a_run_whose_own_records_fill_redis_goes_on(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """They are more than fits, and are collected: that makes the room for the rest."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write(questions, QUESTIONS, metadata=20_000 * "x")

    with Processes(redis_server.url, tmp_path, WINDOW) as fleet:
        fleet.submit(questions, answers, "--run", "run-1")
        wait_until(lambda: accepted(client) >= 200, "megabytes are accepted")
        fleet.kill("producer", signal.SIGSTOP)
        fleet.batcher()
        fleet.worker()
        # However much was sent by then: all of it is answered while nobody collects.
        wait_until(lambda: (run := read_run(client, KEYS, "run-1")).accepted == run.answered, "records gather")
        # To the brim. Much less, and a chunk of questions would not fit in beside the fleet itself.
        client.config_set("maxmemory", used(client) - 100_000)
        fleet.kill("producer", signal.SIGCONT)

        assert fleet.finish("producer") == 0

    assert lines_in(answers) == QUESTIONS


def test_how_a_run_stands_can_be_read_of_a_full_redis(client: redis.Redis) -> None:
    """A full Redis is no reason for `wait()` to give up.

    A producer fills one that is smaller than what may be pending.
    """
    submissions.Submitter(client, "run-1", 3).offer(3)
    client.config_set("maxmemory", used(client) // 2)

    assert read_run(client, KEYS, "run-1").accepted == 3
