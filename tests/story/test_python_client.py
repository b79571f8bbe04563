"""The Python client, as programs use it, and what goes wrong on the way.

Redis is real, and so are the workers, with the stub engine.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet import (
    Answer,
    AsyncFleet,
    Failure,
    Fleet,
    FleetError,
    Question,
    QuestionFailedError,
    QuestionLike,
    QueueUnavailableError,
    RunBusyError,
    UsageError,
)
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import spawn
from producer.stream_run import StreamRun
from tests.processes import PATIENCE_S, ROOT, Processes, unmeasured, wait_until

SLOW_ENVIRON = {"BATCHFLEET_STUB_STEP_S": "0.02", "BATCHFLEET_STUB_MIN_TOKENS": "5", "BATCHFLEET_STUB_MAX_TOKENS": "25"}


@pytest.fixture
def workers(redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis) -> Iterator[Processes]:
    """A batcher and a fast worker, which has reported."""
    with Processes(redis_server.url, tmp_path) as processes:
        processes.batcher()
        processes.worker()
        wait_until(lambda: client.exists("batchfleet:workers"), "the worker reports")
        yield processes


def numbered(count: int) -> list[dict[str, Any]]:
    """Questions with ids of their own."""
    return [{"id": f"q{number}", "question": f"What is {number} + {number}?"} for number in range(count)]


def ids(count: int) -> Counter[str]:
    """Their ids, each once."""
    return Counter(f"q{number}" for number in range(count))


class Program:
    """A process that runs some Python which uses the client, on the Redis of a test; it prints what it has."""

    def __init__(self, url: str, folder: Path, code: str) -> None:
        self.output = folder / "program.out"
        (folder / "program.py").write_text(code)
        env = {**unmeasured(os.environ), "PYTHONPATH": str(ROOT), "BATCHFLEET_REDIS_URL": url, "PYTHONUNBUFFERED": "1"}
        self.process = spawn([sys.executable, str(folder / "program.py")], env, self.output)

    def lines(self) -> list[str]:
        """Its output so far; a line that is not whole is left out."""
        return self.output.read_text().rpartition("\n")[0].splitlines()

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


ANSWERING = """
from batchfleet import Fleet
with Fleet(model="stub") as fleet:
    questions = ({"id": f"q{number}", "question": f"What is {number} + {number}?"} for number in range(2000))
    for answer in fleet.answer(questions, run="mine", window=300):
        print(answer.id)
"""


@pytest.mark.usefixtures("workers")
def test_questions_of_every_form_are_answered(redis_server: EmbeddedServer) -> None:
    """Texts, dicts as lines have them, chat messages and Question values.

    Ids, metadata and parameters come back with the answer.
    """
    questions: list[QuestionLike] = [
        "Why?",
        {"id": "line", "question": "How?", "metadata": {"set": "A"}},
        {
            "custom_id": "batch",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "Who?"}]},
        },
        Question(messages=[{"role": "user", "content": "When?"}], id="chat", params={"max_tokens": 3}, priority=2),
    ]

    with Fleet(redis_server.url) as fleet:
        answers = {answer.id: answer for answer in fleet.answer(questions, params={"max_tokens": 5})}
        asked = fleet.ask("Where?", timeout_s=PATIENCE_S)

    assert all(
        isinstance(answer, Answer) and answer.text and answer.model == "stub" for answer in [*answers.values(), asked]
    )
    assert set(answers) > {"line", "batch", "chat"}
    assert answers["line"].metadata == {"set": "A"}
    assert {name: answers[name].params["max_tokens"] for name in ("line", "batch", "chat")} == {
        "line": 5,
        "batch": 5,
        "chat": 3,
    }
    assert answers["line"].as_dict()["status"] == "answered"


def test_a_failure_is_raised_or_returned_as_the_caller_likes(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """It is never an answer. Raised, it carries its record, and what was not taken yet can still be taken."""
    with (
        Processes(redis_server.url, tmp_path, {"BATCHFLEET_STUB_REFUSE_ON": "bad"}) as processes,
        Fleet(redis_server.url, model="stub") as fleet,
    ):
        processes.batcher()
        processes.worker()
        questions: list[Any] = [
            "good",
            "bad",
            {"id": "typo", "quesiton": "?"},
            {"id": 1.5, "question": "?"},
            {"prompt": object()},
            "also good",
        ]

        found = list(fleet.answer(questions, errors="return"))
        submitted = fleet.submit(["bad", "good"], run="raising")
        with pytest.raises(QuestionFailedError, match="refused") as caught:
            list(submitted.results()) + list(submitted.results())
        rest = list(submitted.results())
        with pytest.raises(QuestionFailedError):
            fleet.ask("bad")
        asked = fleet.ask("bad", errors="return")

    kinds = Counter(result.kind if isinstance(result, Failure) else "answered" for result in found)
    assert kinds == {"answered": 2, "refused": 1, "invalid_question": 3}
    assert (caught.value.failure.kind, caught.value.failure.run, caught.value.failure.retryable) == (
        "refused",
        "raising",
        False,
    )
    assert len(rest) <= 1
    assert isinstance(asked, Failure)
    assert asked.as_dict()["error"]["kind"] == "refused"


@pytest.mark.usefixtures("workers")
def test_what_cannot_be_asked_is_an_error_at_once(redis_server: EmbeddedServer) -> None:
    """Mistakes of the program, each with what to do.

    They are one question for many, no question at all, bad names and numbers.
    """
    with Fleet(redis_server.url) as fleet:
        with pytest.raises(TypeError, match=r"one question; use ask\(\)"):
            fleet.answer("Why?")
        with pytest.raises(TypeError, match="not int"):
            list(fleet.answer([1]))  # type: ignore[list-item]
        with pytest.raises(ValueError, match="'raise' or 'return'"):
            fleet.answer(["Why?"], errors="ignore")  # type: ignore[call-overload]
        with pytest.raises(UsageError, match="cannot be the id of a run"):
            fleet.submit(["Why?"], run="no spaces")
        with pytest.raises(UsageError, match="no run 'other' in Redis"):
            fleet.run("other")
        with pytest.raises(ValueError, match="1 or more"):
            fleet.submit(["Why?"], window=0)
    with pytest.raises(FleetError, match="closed"):
        fleet.ask("Why?")


@pytest.mark.usefixtures("workers")
def test_an_error_in_the_generator_reaches_the_caller(redis_server: EmbeddedServer) -> None:
    """As it was raised, and the run can be resumed once it is mended."""

    def questions(*, broken: bool) -> Iterator[dict[str, Any]]:
        for question in numbered(500):
            if broken and question["id"] == "q400":
                raise LookupError("line 400")
            yield question

    taken: Counter[str] = Counter()
    with Fleet(redis_server.url) as fleet:
        with pytest.raises(LookupError, match="line 400"):
            taken.update(answer.id for answer in fleet.answer(questions(broken=True), run="mended"))
        taken.update(answer.id for answer in fleet.answer(questions(broken=False), run="mended"))

    assert taken.keys() == ids(500).keys()
    # The one that was being handled comes twice.
    assert taken.total() <= 501


@pytest.mark.usefixtures("workers")
def test_a_generator_is_gone_through_no_further_than_the_window(redis_server: EmbeddedServer) -> None:
    """One without end is fine: what was taken plus the window, plus what is on its way, is all that was ever made."""
    made = 0

    def endless() -> Iterator[str]:
        nonlocal made
        while True:
            made += 1
            yield f"Number {made}?"

    with Fleet(redis_server.url) as fleet:
        answers = fleet.answer(endless(), window=50)
        for taken, _ in enumerate(answers, 1):
            assert made <= taken + 50 + 2 * 50 + 1
            if taken == 500:
                break


@pytest.mark.usefixtures("workers")
def test_a_generator_may_wait_for_answers_of_its_own(redis_server: EmbeddedServer) -> None:
    """Each question is made of the answer to the one before; nothing waits for a chunk to fill."""
    came = threading.Semaphore(3)
    asked = 0

    def each_after_the_other() -> Iterator[str]:
        nonlocal asked
        for asked in range(60):
            assert came.acquire(timeout=PATIENCE_S)
            yield f"After {asked}?"

    count = 0
    with Fleet(redis_server.url) as fleet:
        for _ in fleet.answer(each_after_the_other(), timeout_s=PATIENCE_S):
            count += 1
            came.release()

    assert count == 60


def test_a_killed_worker_costs_nothing_but_time(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """SIGKILL during `answer`: another worker has what it held, and every answer comes once."""
    taken: Counter[str] = Counter()
    with (
        Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as processes,
        Fleet(redis_server.url, model="stub") as fleet,
    ):
        processes.batcher()
        processes.worker("doomed")
        for answer in fleet.answer(numbered(600), run="kill", timeout_s=PATIENCE_S):
            taken[answer.id] += 1
            if taken.total() == 30:
                wait_until(lambda: client.zcard("batchfleet:leases:stub"), "batches in flight")
                processes.kill("doomed")
                processes.worker("successor")
        status = fleet.run("kill").status()

    assert taken == ids(600)
    assert (status.answered, status.failed, status.delivered, status.is_done) == (600, 0, 600, True)


def test_a_redis_that_is_killed_and_comes_back_loses_nothing(redis_server: EmbeddedServer, workers: Processes) -> None:
    """The client waits, asks where it was, and continues."""
    taken: Counter[str] = Counter()
    with Fleet(redis_server.url, model="stub") as fleet:
        for answer in fleet.answer(numbered(3000), timeout_s=PATIENCE_S, window=500):
            taken[answer.id] += 1
            if taken.total() in {100, 1500}:
                assert redis_server.process is not None
                redis_server.process.kill()
                redis_server.process.wait()
                redis_server.start()

    assert taken == ids(3000)
    assert workers.started["worker"].poll() is None


SLOW_WORKER = {name.removeprefix("BATCHFLEET_"): value for name, value in SLOW_ENVIRON.items()}


def test_a_redis_that_lost_everything_costs_time_and_no_answer(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """All questions were accepted, and are forgotten.

    Who still has them asks again, instead of taking the silence for the end.
    """
    taken: Counter[str] = Counter()
    with Processes(redis_server.url, tmp_path) as processes, Fleet(redis_server.url, model="stub") as fleet:
        processes.batcher()
        processes.worker(**SLOW_WORKER)
        for answer in fleet.answer(numbered(1500), timeout_s=PATIENCE_S, run="mine"):
            taken[answer.id] += 1
            if taken.total() == 100:
                wait_until(lambda: client.hget("batchfleet:run:mine", "questions") == b"1500", "all are accepted")
                client.flushall()

    assert taken == ids(1500)


def test_who_only_collects_is_told_that_redis_lost_the_run(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """The questions are nowhere any more; an end like any other would pass for all answers."""
    with Processes(redis_server.url, tmp_path) as processes, Fleet(redis_server.url, model="stub") as fleet:
        fleet.submit(numbered(1500), run="mine")
        wait_until(lambda: client.hget("batchfleet:run:mine", "questions") == b"1500", "all are accepted")
        processes.batcher()
        processes.worker(**SLOW_WORKER)
        fleet.close()
        with Fleet(redis_server.url) as another:
            results = another.run("mine").results(timeout_s=PATIENCE_S)
            next(results)
            client.flushall()
            with pytest.raises(FleetError, match="Redis has lost run mine"):
                list(results)


async def test_asks_survive_a_redis_that_lost_everything(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """Whoever awaits an answer holds the question.

    It is asked again, though nothing else is asked that would show the loss.
    """
    async with AsyncFleet(redis_server.url, model="stub") as fleet:
        asked = [asyncio.create_task(fleet.ask(f"Number {number}?")) for number in range(20)]
        await asyncio.to_thread(
            wait_until, lambda: client.xlen("batchfleet:questions:stub:0") == 20, "all are accepted"
        )
        client.flushall()
        with Processes(redis_server.url, tmp_path) as processes:
            processes.batcher()
            processes.worker()
            answers = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE_S)

    assert len(answers) == 20


@pytest.mark.usefixtures("workers")
def test_a_killed_program_is_gone_on_with(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """After SIGKILL, `run` collects what was asked, and only what was not handled comes again.

    The same questions under the same name continue.
    """
    program = Program(redis_server.url, tmp_path, ANSWERING)
    wait_until(lambda: len(program.lines()) > 500, "the first answers")
    program.end(signal.SIGKILL)
    before = Counter(program.lines())

    with Fleet(redis_server.url, model="stub") as fleet:
        attached = Counter(answer.id for answer in fleet.run("mine").results(timeout_s=PATIENCE_S))
        resumed = Counter(answer.id for answer in fleet.answer(numbered(2000), run="mine", timeout_s=PATIENCE_S))
        assert fleet.run("mine").wait(PATIENCE_S).accepted == 2000

    assert before.keys() | attached.keys() | resumed.keys() == ids(2000).keys()
    assert max((before | attached).values()) == 1
    assert not resumed.keys() & (before.keys() | attached.keys())
    assert len(attached) <= 300


@pytest.mark.usefixtures("workers")
@pytest.mark.usefixtures("workers")
def test_a_killed_program_that_asked_leaves_nothing_for_ever(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """What was asked is answered for nobody; every key of the run has an end, and nothing counts as pending."""
    code = """
import threading
from batchfleet import Fleet
fleet = Fleet(model="stub")
for number in range(200):
    threading.Thread(target=fleet.ask, args=(f"What is {number}?",)).start()
print("asked", flush=True)
"""
    program = Program(redis_server.url, tmp_path, code)
    wait_until(
        lambda: any(
            int(client.hget(run, "accepted") or 0) for run in client.scan_iter("batchfleet:run:ask-*", _type="hash")
        ),
        "questions are sent",
    )

    program.end(signal.SIGKILL)

    wait_until(
        lambda: {int(count) for count in client.hvals("batchfleet:pending")} == {0}, "what was accepted is answered"
    )
    left = {key: client.ttl(key) for key in client.scan_iter("batchfleet:run:ask-*")}
    assert left
    assert all(0 < ttl <= 7 * 86_400 for ttl in left.values()), left


@pytest.mark.usefixtures("workers")
def test_waiting_outlasts_a_redis_that_is_away(redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """`wait` continues where it was, as the rest of the client does; a limit of its own still holds."""
    with Fleet(redis_server.url, model="stub") as fleet:
        run = fleet.submit(numbered(200))
        assert redis_server.process is not None
        # On a busy disk a server writes its file up to two seconds after it has replied (`appendfsync everysec`).
        wait_until(lambda: not client.info("persistence")["aof_buffer_length"], "what it has is in its file")
        redis_server.process.kill()
        redis_server.process.wait()
        with pytest.raises(TimeoutError, match=r"was not done within 0\.5 s; it continues"):
            run.wait(0.5)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(run.wait, PATIENCE_S)
            redis_server.start()

            assert waiting.result().answered == 200


@pytest.mark.usefixtures("workers")
def test_ctrl_c_says_how_to_go_on(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """The program ends at once, names the run, and every answer that it has not handled is there for the next."""
    program = Program(redis_server.url, tmp_path, "import logging\nlogging.basicConfig()\n" + ANSWERING)
    wait_until(lambda: len(program.lines()) > 200, "the first answers")

    code = program.end(signal.SIGINT)

    assert code in {1, -signal.SIGINT, 130}
    assert "left run mine before its end; Fleet.run('mine') resumes it" in program.output.read_text()
    # The log goes to the same file, and may follow an id before its newline does.
    printed = set(re.findall(r"^q\d+", program.output.read_text(), re.MULTILINE))
    with Fleet(redis_server.url, model="stub") as fleet:
        rest = {answer.id for answer in fleet.answer(numbered(2000), run="mine", timeout_s=PATIENCE_S)}
    assert printed | rest == ids(2000).keys()
    # The one that was being handled may come twice.
    assert len(printed & rest) <= 1


@pytest.mark.usefixtures("workers")
def test_a_run_is_resumed_with_its_own_questions_only(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """Other questions, fewer, another model, or the run of a file: each is refused, and says why."""
    (tmp_path / "questions.jsonl").write_text('{"id": "q1", "question": "Of a file?"}\n')
    changed = [*numbered(99), {"id": "q99", "question": "Something else?"}]
    with Fleet(redis_server.url, model="stub") as fleet:
        assert len(list(fleet.answer(numbered(100), run="ours"))) == 100
        for others in (changed, numbered(50)):
            with pytest.raises(
                UsageError, match="the first 100 questions that it was given are not the first of these"
            ):
                list(fleet.answer(others, run="ours", timeout_s=PATIENCE_S))
        assert Counter(answer.id for answer in fleet.answer(numbered(120), run="ours")) == ids(120) - ids(100)
    with (
        Fleet(redis_server.url, model="another") as fleet,
        pytest.raises(UsageError, match="or were for another model"),
    ):
        list(fleet.answer(numbered(100), run="ours"))
    with Processes(redis_server.url, tmp_path) as processes:
        processes.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "files")
        assert processes.finish("producer") == 0
    with Fleet(redis_server.url) as fleet:
        assert fleet.run("files").wait(PATIENCE_S).answered == 1
        with pytest.raises(UsageError, match="go to a file"):
            fleet.run("files").results()


def test_a_run_has_one_collector(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """While a living process has it, another is told so; in the same client, the later call takes it over."""
    program = Program(redis_server.url, tmp_path, ANSWERING)
    with Fleet(redis_server.url, model="stub", config={"limits.run_window": 500}) as fleet:
        wait_until(lambda: fleet_knows(fleet, "mine"), "the run")
        with pytest.raises(RunBusyError, match=f"process {program.process.pid}"):
            fleet.run("mine").results()
        program.end(signal.SIGKILL)
        first = fleet.run("mine").results()
        second = fleet.run("mine").results()
        assert first is not second
        with pytest.raises(Exception, match="was left before its end"):
            next(iter(first))


def fleet_knows(fleet: Fleet, run: str) -> bool:
    """Whether anything of a run was accepted."""
    try:
        return fleet.run(run).status().accepted > 0
    except UsageError:
        return False


def test_a_cancelled_run_ends(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """What waits fails as cancelled, nothing more is asked, and other runs are answered."""
    made = 0

    def endless() -> Iterator[str]:
        nonlocal made
        while True:
            made += 1
            yield f"Number {made}?"

    with (
        Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as processes,
        Fleet(redis_server.url, model="stub") as fleet,
    ):
        processes.batcher()
        processes.worker()
        doomed = fleet.submit(endless(), window=1000)
        other = fleet.submit(numbered(50))
        results = doomed.results(errors="return", timeout_s=PATIENCE_S)
        seen = [next(results) for _ in range(20)]
        doomed.cancel()
        seen += results
        status = doomed.status()
        assert Counter(answer.id for answer in other.results(timeout_s=PATIENCE_S)) == ids(50)

    kinds = Counter(result.kind if isinstance(result, Failure) else "answered" for result in seen)
    assert kinds["cancelled"] > 500
    assert set(kinds) == {"cancelled", "answered"}
    assert len(seen) == status.accepted
    assert status.is_cancelled
    assert status.is_done


def test_a_full_fleet_makes_the_client_wait(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """It says why, and gives up only where a time-out was asked for."""
    bounds = {"limits.max_pending_questions": 100, "limits.run_window": 60}
    with (
        Processes(redis_server.url, tmp_path) as processes,
        Fleet(redis_server.url, model="stub", config=bounds) as fleet,
    ):
        first = fleet.submit(numbered(1000))
        wait_until(lambda: "fills the window" in first.status().waiting_for, "the first run has its share")
        run = fleet.submit(numbered(1000))
        wait_until(lambda: "limits.max_pending_questions" in run.status().waiting_for, "the client waits")
        with pytest.raises(TimeoutError, match="continues"):
            next(run.results(timeout_s=0.05))
        with pytest.raises(TimeoutError, match="continues"):
            run.wait(0.05)
        with pytest.raises(TimeoutError, match="withdrawn"):
            fleet.ask("Is there room?", timeout_s=0.05)
        processes.batcher()
        processes.worker()
        for each in (run, first):
            assert Counter(answer.id for answer in each.results(timeout_s=PATIENCE_S)) == ids(1000)


@pytest.mark.usefixtures("workers")
def test_waiting_for_a_run_whose_window_is_full_is_an_error(redis_server: EmbeddedServer) -> None:
    """It would wait for ever; taking the results resumes it. One that fits is waited for."""
    with Fleet(redis_server.url) as fleet:
        run = fleet.submit(numbered(2000), window=300)
        with pytest.raises(UsageError, match=r"take them with results\(\)"):
            run.wait(PATIENCE_S)
        assert Counter(answer.id for answer in run.results(timeout_s=PATIENCE_S)) == ids(2000)
        small = fleet.submit(numbered(50))
        assert small.wait(PATIENCE_S).answered == 50


async def test_thousands_of_asks_share_a_run_and_two_connections(
    redis_server: EmbeddedServer, workers: Processes, client: redis.Redis
) -> None:
    """Each gets its own answer; they travel together."""
    async with AsyncFleet(redis_server.url) as fleet:
        answers = await asyncio.gather(
            *(fleet.ask({"id": f"q{number}", "question": f"Number {number}?"}) for number in range(3000))
        )
        during: Any = client.client_list()
        runs: Any = client.zrange("batchfleet:runs", 0, -1)
        status = await fleet.status()

    after: Any = client.client_list()
    assert [answer.id for answer in answers] == [f"q{number}" for number in range(3000)]
    assert len(during) - len(after) <= 3
    assert len(runs) == 1
    assert status.batchers[0].batches < 1500
    assert workers.started["worker"].poll() is None


async def test_a_cancelled_ask_is_taken_out_of_the_engine(
    redis_server: EmbeddedServer, tmp_path: Path, client: redis.Redis
) -> None:
    """Whether it runs, waits in a batch or was never sent: no GPU works for nobody. Its neighbours are answered."""
    # An answer takes 50 s here, four at a time: not to wait for.
    slow = {
        "BATCHFLEET_STUB_STEP_S": "0.5",
        "BATCHFLEET_STUB_MIN_TOKENS": "100",
        "BATCHFLEET_STUB_MAX_TOKENS": "100",
        "BATCHFLEET_STUB_MAX_NUM_SEQS": "4",
    }
    with Processes(redis_server.url, tmp_path, slow) as processes:
        processes.batcher()
        processes.worker()
        async with AsyncFleet(redis_server.url, model="stub") as fleet:
            asked = [asyncio.create_task(fleet.ask(f"Number {number}?")) for number in range(200)]
            wanted = asyncio.create_task(fleet.ask({"question": "Short?", "params": {"max_tokens": 1}}))
            await asyncio.to_thread(
                wait_until, lambda: client.zcard("batchfleet:leases:stub"), "questions in the engine"
            )
            for task in asked:
                task.cancel()
            outcome = await asyncio.gather(*asked, return_exceptions=True)
            assert (await asyncio.wait_for(wanted, PATIENCE_S)).usage.completion_tokens == 1
            runs: Any = client.zrange("batchfleet:runs", 0, -1)
            await asyncio.to_thread(
                wait_until,
                lambda: client.hget(f"batchfleet:run:{runs[0].decode()}", "failed") == b"200",
                "all have ended",
            )
            await asyncio.to_thread(
                wait_until, lambda: not client.exists("batchfleet:withdrawn"), "the note of it is gone"
            )

    assert all(isinstance(result, asyncio.CancelledError) for result in outcome)


@pytest.mark.usefixtures("workers")
async def test_asks_go_on_in_a_new_run_when_theirs_is_full(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    """So that no ledger grows without end."""
    monkeypatch.setattr("batchfleet.client.single_questions.MOST_IN_A_RUN", 100)
    async with AsyncFleet(redis_server.url) as fleet:
        answers = await asyncio.gather(*(fleet.ask(f"Number {number}?") for number in range(950)))

    runs: Any = client.zrange("batchfleet:runs", 0, -1)
    assert len(answers) == 950
    assert len(runs) == 10


def streams_in_memory() -> int:
    """Runs that this process serves, or holds on to."""
    gc.collect()
    return sum(isinstance(thing, StreamRun) for thing in gc.get_objects())


@pytest.mark.usefixtures("workers")
async def test_nothing_stays_of_runs_that_are_over(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service asks for months; what it has asked must not fill its memory."""
    monkeypatch.setattr("batchfleet.client.single_questions.MOST_IN_A_RUN", 5)
    async with AsyncFleet(redis_server.url) as fleet:
        for number in range(60):
            await fleet.ask(f"Number {number}?")
        await asyncio.to_thread(
            wait_until, lambda: sum("ask-" in thread.name for thread in threading.enumerate()) <= 2, "earlier runs end"
        )
        for number in range(6):
            await fleet.ask(f"Number {number}?")

        assert streams_in_memory() <= 4


async def test_nothing_stays_of_asks_while_redis_is_away() -> None:
    """A service tries for hours, a hundred times a second."""
    fleet = AsyncFleet("redis://127.0.0.1:1", model="stub")
    for number in range(20):
        with pytest.raises(QueueUnavailableError):
            await fleet.ask(f"Number {number}?")

    assert streams_in_memory() < 10


@pytest.mark.usefixtures("workers")
async def test_questions_may_come_from_an_asynchronous_generator(redis_server: EmbeddedServer) -> None:
    """It is gone through on the loop, no further than the window.

    Several runs continue at once, beside single questions.
    """
    made = 0

    async def questions() -> AsyncIterator[dict[str, Any]]:
        nonlocal made
        for question in numbered(1000):
            made += 1
            await asyncio.sleep(0)
            yield question

    async def answered(fleet: AsyncFleet) -> Counter[str]:
        return Counter([answer.id async for answer in fleet.answer(questions(), window=40, timeout_s=PATIENCE_S)])

    async with AsyncFleet(redis_server.url) as fleet:
        run = await fleet.submit(questions(), window=40)
        await run.__aenter__()
        results = run.results()
        _ = [await anext(results) for _ in range(10)]
        assert made <= 10 + 3 * 40 + 1
        await run.close()
        several = await asyncio.gather(*(answered(fleet) for _ in range(5)), fleet.ask("Beside?"))

    assert all(count == ids(1000) for count in several[:5])


@pytest.mark.usefixtures("workers")
async def test_the_blocking_client_works_where_a_loop_runs(redis_server: EmbeddedServer) -> None:
    """As in a notebook, whose cells run on a loop."""
    assert asyncio.get_running_loop().is_running()

    with Fleet(redis_server.url) as fleet:
        assert Counter(answer.id for answer in fleet.answer(numbered(100))) == ids(100)
        assert fleet.ask("Here?").text


@pytest.mark.usefixtures("workers")
async def test_an_asynchronous_run_is_a_handle_too(redis_server: EmbeddedServer) -> None:
    """Wait, status, results, cancel, and found again by its name."""
    async with AsyncFleet(redis_server.url) as fleet:
        run = await fleet.submit(numbered(60), run="handle")
        assert (await run.wait(PATIENCE_S)).answered == 60
        await run.close()
        again = await fleet.run("handle")
        assert Counter([answer.id async for answer in again.results(timeout_s=PATIENCE_S)]) == ids(60)
        assert (await again.status()).delivered == 60
        assert (await again.cancel()).is_cancelled
        with pytest.raises(UsageError, match="no run"):
            await fleet.run("nothing")


def test_a_fleet_of_its_own_answers_and_is_gone() -> None:
    """`Fleet.local`: for a notebook without Redis. Its processes are gone at the end."""
    with Fleet.local("stub", workers=2, config={"stub.refuse_on": "bad"}) as fleet:
        names = [worker.name for worker in fleet.status().workers]
        answered = list(fleet.answer(numbered(200), timeout_s=PATIENCE_S))
        refused = fleet.ask("bad", errors="return")
        children = subprocess.run(  # noqa: S603  # noqa: S603
            ["ps", "--ppid", str(os.getpid()), "-o", "args="],  # noqa: S607  # noqa: S607 # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    after = subprocess.run(  # noqa: S603
        ["ps", "--ppid", str(os.getpid()), "-o", "args="],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert names
    assert len(answered) == 200
    assert isinstance(refused, Failure)
    assert children.count("-m batchfleet worker") == 2
    assert "-m batchfleet" not in after


def test_a_local_fleet_that_cannot_start_says_why() -> None:
    """With what its engine said, and nothing left behind."""
    with pytest.raises(UsageError, match=r"^Fleet: stub\.nonsense"):
        Fleet.local("stub", config={"stub.nonsense": 1})
    with pytest.raises(UsageError, match=r"^Fleet: redis\.url: is not a Redis URL"):
        Fleet("localhost")
    with pytest.raises(Exception, match="needs a model"):
        Fleet.local("openai")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_run(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """200 000 questions of 2 kB each, 400 MB in all.

    The program that asks them stays within 40 MB of what it had after the first 20 000.
    """
    code = """
import json, resource
from batchfleet import Fleet
used = {}
with Fleet(model="stub") as fleet:
    questions = ({"id": f"q{number}", "question": f"{number} " * 250} for number in range(200_000))
    for count, answer in enumerate(fleet.answer(questions, window=2000, params={"max_tokens": 2}), 1):
        if count % 20_000 == 0:
            used[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps(used))
"""
    with Processes(redis_server.url, tmp_path) as processes:
        processes.batcher()
        processes.worker()
        program = Program(redis_server.url, tmp_path, code)
        assert program.process.wait(PATIENCE_S) == 0, program.output.read_text()[-2000:]

    used = json.loads(program.lines()[-1])
    assert list(used)[-1] == "200000"
    assert used["200000"] - used["20000"] < 40, used
