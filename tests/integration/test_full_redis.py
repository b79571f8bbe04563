"""Redis has no memory left: nothing more is accepted, and what was accepted is still answered, which makes room."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import redis

from batchfleet.client.run_status import read_run
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, lines_in, read_answers, wait_until
from tests.submissions import Submitter
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
    Submitter(client, "run-1", 3).offer(3)
    client.config_set("maxmemory", used(client) // 2)

    assert read_run(client, KEYS, "run-1").accepted == 3
