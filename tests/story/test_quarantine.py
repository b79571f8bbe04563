"""One bad question harms only itself: what kills its engine is found and put aside, and everything else is answered."""

from __future__ import annotations

import math
import re
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, read_answers, wait_until, write_questions

SHORT_LEASES = {
    "BATCHFLEET_LEASES_BATCH_S": "1.5",
    "BATCHFLEET_LEASES_LEADER_S": "1.0",
    "BATCHFLEET_LEASES_HEARTBEAT_S": "0.3",
}
WORKERS = ("one", "two", "three")


@pytest.mark.parametrize(("batch_size", "culprits"), [("64", ["q1234"]), ("1", ["q400", "q410", "q1700"])])
def test_a_question_that_kills_its_engine_is_found_and_its_neighbours_are_answered(
    tmp_path: Path, batch_size: str, culprits: list[str]
) -> None:
    """Each ends as a failure with the evidence, after at most log2(in flight) + 2 deaths.

    This holds however large the batches are.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 2000)
    text = (tmp_path / "questions.jsonl").read_text()
    for culprit in culprits:
        text = text.replace(f"Question {culprit}.", f"Question {culprit}. KILLER")
    (tmp_path / "questions.jsonl").write_text(text)
    answers = tmp_path / "answers.jsonl"
    environ = {
        **SHORT_LEASES,
        "BATCHFLEET_STUB_CRASH_ON": "KILLER",
        "BATCHFLEET_STUB_STEP_S": "0.001",
        "BATCHFLEET_BATCH_SIZE": batch_size,
    }

    arguments = ["run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub", "--workers", "3"]
    done = batchfleet(*arguments, environ=environ)

    assert done.returncode == 1, done.stderr
    failed = {line["id"]: line["error"] for line in read_answers(answers) if line["status"] == "failed"}
    assert sorted(failed) == sorted(culprits)
    for error in failed.values():
        assert error["kind"] == "engine_killed"
        assert error["evidence"]["deaths"] <= math.log2(64) + 2
        assert len(error["evidence"]["workers"]) == error["evidence"]["deaths"]
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)


def holder_of_a_batch(client: redis.Redis, fleet: Processes, deaths: int) -> str | None:
    """The worker that holds a batch of which that many workers have died already; None if nobody does."""
    names = {last: name for name in WORKERS for last in re.findall(r"worker (\S+) serves ", fleet.log(name))[-1:]}
    leased: Any = client.zrange("batchfleet:leases:stub", 0, -1)
    held: list[Any] = [client.hmget(f"rq:job:{batch.decode()}", "deaths", "worker_name") for batch in leased]
    return next(
        (names.get(worker.decode()) for died, worker in held if worker is not None and int(died or 0) == deaths), None
    )


def stopped_holder(client: redis.Redis, fleet: Processes, deaths: int) -> str | None:
    """The same, stopped (SIGSTOP) while it still holds that batch.

    Between a look and a kill it could otherwise have finished it.
    """
    name = holder_of_a_batch(client, fleet, deaths)
    if name is None:
        return None
    fleet.kill(name, signal.SIGSTOP)
    if holder_of_a_batch(client, fleet, deaths) == name:
        return name
    fleet.kill(name, signal.SIGCONT)
    return None


def test_workers_killed_from_outside_cost_no_question_its_answer(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """A question whose worker is killed four times in a row is answered like all others.

    Two of these times it runs alone.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 200)
    answers = tmp_path / "answers.jsonl"
    environ = {
        **SHORT_LEASES,
        "BATCHFLEET_STUB_STEP_S": "0.02",
        "BATCHFLEET_STUB_MAX_NUM_SEQS": "8",
        "BATCHFLEET_BATCH_SIZE": "1",
    }
    environ["BATCHFLEET_STUB_MIN_TOKENS"] = "64"
    with Processes(redis_server.url, tmp_path, environ) as fleet:
        fleet.batcher()
        for name in WORKERS:
            fleet.worker(name)
        fleet.submit(tmp_path / "questions.jsonl", answers)
        holders: list[str] = []

        def found(deaths: int) -> bool:
            holders.extend(filter(None, [stopped_holder(client, fleet, deaths)]))
            return len(holders) > deaths

        for deaths in range(4):
            wait_until(partial(found, deaths), f"somebody holds a batch that {deaths} workers died with")
            name = holders[-1]
            fleet.kill(name)
            fleet.finish(name)
            fleet.worker(name)
        assert fleet.finish("producer") == 0
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    assert all(line["status"] == "answered" for line in read_answers(answers))
    assert max(line["attempts"] for line in read_answers(answers)) > 4


def test_a_hanging_question_times_out_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    """Its time limit ends it; what runs beside it does not notice."""
    write_questions(tmp_path / "questions.jsonl", 300)
    answers = tmp_path / "answers.jsonl"
    environ = {
        **SHORT_LEASES,
        "BATCHFLEET_STUB_HANG_ON": "Question q77.",
        "BATCHFLEET_STUB_STEP_S": "0.001",
        "BATCHFLEET_LIMITS_QUESTION_TIMEOUT_S": "10",
        "BATCHFLEET_LEASES_STALL_S": "10",
    }

    done = batchfleet("run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub", environ=environ)

    assert done.returncode == 1, done.stderr
    assert [(line["id"], line["error"]["kind"]) for line in read_answers(answers) if line["status"] == "failed"] == [
        ("q77", "timed_out")
    ]


def test_a_worker_whose_engine_stalls_gives_its_work_up(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Alive is not enough: without progress it loses its work, and another answers it."""
    write_questions(tmp_path / "questions.jsonl", 40)
    answers = tmp_path / "answers.jsonl"
    with Processes(
        redis_server.url,
        tmp_path,
        {**SHORT_LEASES, "BATCHFLEET_STUB_STEP_S": "0.001"},
    ) as fleet:
        fleet.batcher()
        fleet.worker("stuck", STUB_HANG_ON="What is", LEASES_STALL_S="2")
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: client.zcard("batchfleet:leases:stub"), "batches in flight")
        assert fleet.finish("stuck") == 3
        assert "no progress" in fleet.log("stuck")
        fleet.worker("healthy")
        assert fleet.finish("producer") == 0
    assert all(line["status"] == "answered" for line in read_answers(answers))
