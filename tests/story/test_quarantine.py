"""One bad question harms only itself: what kills its engine is found and put aside, and everything else is answered."""

from __future__ import annotations

import math
from pathlib import Path

import redis

from fleet.private_redis import PrivateRedis
from tests.processes import Processes, batchfleet, read_answers, wait_until, write_questions

SHORT_LEASES = {
    "BATCHFLEET_LEASES_BATCH_S": "1.5",
    "BATCHFLEET_LEASES_LEADER_S": "1.0",
    "BATCHFLEET_LEASES_HEARTBEAT_S": "0.3",
}


def test_a_question_that_kills_its_engine_is_found_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    """It ends as a failure with the evidence, after at most log2(in flight) + 2 deaths."""
    write_questions(tmp_path / "questions.jsonl", 2000)
    answers = tmp_path / "answers.jsonl"
    environ = {**SHORT_LEASES, "BATCHFLEET_STUB_CRASH_ON": "Question q1234.", "BATCHFLEET_STUB_STEP_S": "0.001"}

    arguments = ["run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub", "--workers", "2"]
    done = batchfleet(*arguments, environ=environ, timeout_s=110)

    assert done.returncode == 1, done.stderr
    failed = [line for line in read_answers(answers) if line["status"] == "failed"]
    assert [line["id"] for line in failed] == ["q1234"]
    error = failed[0]["error"]
    assert error["kind"] == "engine_killed"
    assert error["evidence"]["deaths"] <= math.log2(64) + 2
    assert len(error["evidence"]["workers"]) == error["evidence"]["deaths"]
    assert len(read_answers(answers)) == 2000


def test_a_hanging_question_times_out_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    """Its time limit ends it; what runs beside it does not notice."""
    write_questions(tmp_path / "questions.jsonl", 300)
    answers = tmp_path / "answers.jsonl"
    environ = {
        **SHORT_LEASES,
        "BATCHFLEET_STUB_HANG_ON": "Question q77.",
        "BATCHFLEET_STUB_STEP_S": "0.001",
        "BATCHFLEET_LIMITS_QUESTION_TIMEOUT_S": "3",
        "BATCHFLEET_LEASES_STALL_S": "3",
    }

    done = batchfleet("run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub", environ=environ)

    assert done.returncode == 1, done.stderr
    assert [(line["id"], line["error"]["kind"]) for line in read_answers(answers) if line["status"] == "failed"] == [("q77", "timed_out")]


def test_a_worker_whose_engine_stalls_gives_its_work_up(tmp_path: Path, redis_server: PrivateRedis, client: redis.Redis) -> None:
    """Alive is not enough: without progress it loses its work, and another answers it."""
    write_questions(tmp_path / "questions.jsonl", 40)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, {**SHORT_LEASES, "BATCHFLEET_STUB_STEP_S": "0.001", "BATCHFLEET_LEASES_STALL_S": "2"}) as fleet:
        fleet.batcher()
        fleet.worker("stuck", STUB_HANG_ON="What is")
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: client.zcard("batchfleet:leases:stub"), "batches in flight")
        assert fleet.finish("stuck", 15) == 3
        assert "no progress" in fleet.log("stuck")
        fleet.worker("healthy")
        assert fleet.finish("producer") == 0
    assert all(line["status"] == "answered" for line in read_answers(answers))
