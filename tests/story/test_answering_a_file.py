"""The main job: a file of questions becomes a file of answers, whatever dies on the way."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import redis
from rq import Queue, Worker

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions

LONG_LEASES = {"BATCHFLEET_LEASES_BATCH_S": "100"}
"""Where none is to lapse, however slow the machine is."""
SLOW_ENVIRON = {"BATCHFLEET_STUB_STEP_S": "0.02", "BATCHFLEET_STUB_MIN_TOKENS": "5", "BATCHFLEET_STUB_MAX_TOKENS": "25"}


def ledger(url: str, run: str) -> dict[str, object]:
    """What `verify --json` prints."""
    done = batchfleet("verify", run, "--redis", url, "--json")
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def assert_conserved(url: str, run: str, answers: Path, ids: list[str], client: redis.Redis) -> None:
    """Every id exactly once in the file and in the ledger, and nothing left anywhere in the queue path."""
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    assert ledger(url, run) == {
        "run": run,
        "accepted": len(ids),
        "answered": len(ids),
        "failed": 0,
        "missing": 0,
        "duplicates": 0,
    }
    wait_until(lambda: not client.keys("rq:job:*"), "batch jobs are gone")
    assert client.xlen("batchfleet:questions:stub:0") == 0
    assert client.llen("rq:queue:batchfleet:stub") == 0
    assert client.zcard("batchfleet:leases:stub") == 0
    assert client.xlen(f"batchfleet:run:{run}:records") == 0
    assert client.hgetall("batchfleet:pending") == {b"questions": b"0", b"bytes": b"0"}


def test_a_file_is_answered_by_one_command(tmp_path: Path) -> None:
    """`batchfleet run` answers every question once, reports, and leaves nothing behind.

    It starts a fleet with its own Redis.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 500)

    done = batchfleet(
        "run",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "answers.jsonl"),
        "--engine",
        "stub",
        "--workers",
        "2",
        "--json",
    )

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["accepted"], summary["answered"], summary["failed"]) == (500, 500, 0)
    answers = read_answers(tmp_path / "answers.jsonl")
    assert Counter(line["id"] for line in answers) == Counter(ids)
    assert all(
        line["status"] == "answered" and line["text"] and line["params"]["temperature"] == 0.0 for line in answers
    )
    assert "500 questions, 500 answered, 0 failed" in done.stderr
    assert "0 missing, 0 duplicates" in done.stderr


def test_a_failed_question_is_not_an_answer_and_its_neighbours_are_answered(tmp_path: Path) -> None:
    """The refused one is a failure with a kind; exit code 1 says that some failed."""
    write_questions(tmp_path / "questions.jsonl", 40)
    arguments = ["run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub"]

    done = batchfleet(*arguments, environ={"BATCHFLEET_STUB_REFUSE_ON": "Question q7."})

    assert done.returncode == 1, done.stderr
    by_id = {line["id"]: line for line in read_answers(tmp_path / "answers.jsonl")}
    assert by_id["q7"]["status"] == "failed"
    assert by_id["q7"]["error"]["kind"] == "refused"
    assert "text" not in by_id["q7"]
    assert all(line["status"] == "answered" for name, line in by_id.items() if name != "q7")


def test_a_killed_worker_costs_nothing_but_time(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """SIGKILL with batches in flight: another worker has them within 10 s, and every question is answered once."""
    ids = write_questions(tmp_path / "questions.jsonl", 600)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as fleet:
        fleet.batcher()
        fleet.worker("doomed")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "kill-worker")
        wait_until(lambda: lines_in(answers) > 20, "the first answers")
        wait_until(lambda: client.zcard("batchfleet:leases:stub"), "batches in flight")
        held: Any = client.zrange("batchfleet:leases:stub", 0, -1)
        fleet.kill("doomed")
        fleet.worker("successor")
        wait_until(
            lambda: not any(client.exists(f"rq:job:{batch.decode()}") for batch in held),
            "the dead worker's batches are answered",
        )
        assert fleet.finish("producer") == 0
        assert_conserved(redis_server.url, "kill-worker", answers, ids, client)
    # What it held was answered by the other; its first life shows in no line twice, but in the count of attempts.
    assert max(line["attempts"] for line in read_answers(answers)) >= 2


def test_a_killed_batcher_is_replaced_by_its_standby(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """The standby leads once the lease has lapsed, and hands over what waited; nothing is handed over twice."""
    ids = write_questions(tmp_path / "questions.jsonl", 3000)
    answers = tmp_path / "answers.jsonl"
    # Few batches wait in RQ, so that most questions still are in the stream when the leader dies.
    with Processes(redis_server.url, tmp_path, {**SLOW_ENVIRON, "BATCHFLEET_LIMITS_MAX_WAITING_BATCHES": "2"}) as fleet:
        fleet.batcher("leader")
        wait_until(lambda: client.get("batchfleet:leader"), "a leader")
        fleet.batcher("standby")
        fleet.worker("one", STUB_STEP_S="0.005")
        fleet.worker("two", STUB_STEP_S="0.005")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "kill-batcher")
        wait_until(lambda: lines_in(answers) > 50, "the first answers")
        leader = client.get("batchfleet:leader")
        assert client.xlen("batchfleet:questions:stub:0") > 0
        fleet.kill("leader")
        took_s = wait_until(lambda: client.get("batchfleet:leader") not in {leader, None}, "the standby leads")
        print(f"the standby led after {took_s:.1f} s")
        assert fleet.finish("producer") == 0
        assert_conserved(redis_server.url, "kill-batcher", answers, ids, client)


def test_worker_and_batcher_killed_at_once(tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """The standby leads and takes back the dead worker's batches."""
    ids = write_questions(tmp_path / "questions.jsonl", 800)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as fleet:
        fleet.batcher("leader")
        wait_until(lambda: client.get("batchfleet:leader"), "a leader")
        fleet.batcher("standby")
        fleet.worker("doomed")
        fleet.worker("survivor")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "kill-both")
        wait_until(lambda: lines_in(answers) > 50, "the first answers")
        fleet.kill("doomed")
        fleet.kill("leader")
        assert fleet.finish("producer") == 0
        assert_conserved(redis_server.url, "kill-both", answers, ids, client)


def test_a_killed_producer_goes_on_where_it_stopped(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """The same command again keeps every line, asks nothing twice, and ends with one line per question."""
    ids = write_questions(tmp_path / "questions.jsonl", 600)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: lines_in(answers) > 100, "the first answers")
        fleet.kill("producer")
        before = answers.read_bytes().splitlines()
        fleet.submit(tmp_path / "questions.jsonl", answers, name="again")
        assert fleet.finish("again") == 0, fleet.log("again")
        after = answers.read_bytes().splitlines()
        assert after[: len(before)] == before
        runs: Any = client.zrange("batchfleet:runs", 0, -1)
        run = runs[0].decode()
        assert_conserved(redis_server.url, run, answers, ids, client)
        assert client.hget(f"batchfleet:run:{run}", "regenerated") == b"0"


def test_a_torn_last_line_is_mended(tmp_path: Path) -> None:
    """A machine that died in the middle of a line costs that line's question a second answer, not the file."""
    ids = write_questions(tmp_path / "questions.jsonl", 50)
    answers = tmp_path / "answers.jsonl"
    arguments = ["run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub", "--quiet"]
    assert batchfleet(*arguments).returncode == 0
    answers.write_bytes(answers.read_bytes()[:-30])

    assert batchfleet(*arguments).returncode == 0

    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)


def test_a_stopped_worker_finishes_or_gives_back_within_its_grace(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """SIGTERM: no lease has to lapse, no question is begun twice by another unless it was given back."""
    ids = write_questions(tmp_path / "questions.jsonl", 400)
    answers = tmp_path / "answers.jsonl"
    environ = {**SLOW_ENVIRON, **LONG_LEASES, "BATCHFLEET_LEASES_DRAIN_S": "0.3"}
    with Processes(redis_server.url, tmp_path, environ) as fleet:
        fleet.batcher()
        fleet.worker("leaving", STUB_MIN_TOKENS="200", STUB_MAX_TOKENS="400")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "drain")
        wait_until(lambda: client.zcard("batchfleet:leases:stub"), "batches in flight")
        fleet.kill("leaving", signal.SIGTERM)
        assert fleet.finish("leaving") == 0
        assert client.zcard("batchfleet:leases:stub") == 0
        fleet.worker("staying")
        assert fleet.finish("producer") == 0
        assert_conserved(redis_server.url, "drain", answers, ids, client)
    assert {line["attempts"] for line in read_answers(answers)} == {1}


def test_a_batch_is_no_barrier(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """While one question goes on and on, its own batch and all batches behind it are answered by the same worker."""
    write_questions(tmp_path / "questions.jsonl", 400)
    answers = tmp_path / "answers.jsonl"
    with Processes(
        redis_server.url, tmp_path, {"BATCHFLEET_STUB_HANG_ON": "Question q3.", "BATCHFLEET_STUB_STEP_S": "0.001"}
    ) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: lines_in(answers) == 399, "all but one are answered")


def test_rq_tools_see_the_queue_and_the_workers(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """RQ carries the batches: its own listings show them while a run is on."""
    write_questions(tmp_path / "questions.jsonl", 2000)
    with Processes(redis_server.url, tmp_path, SLOW_ENVIRON) as fleet:
        fleet.batcher()
        fleet.worker("one")
        fleet.worker("two")
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        queue = Queue("batchfleet:stub", connection=client)
        wait_until(lambda: queue.count > 0, "batch jobs wait in RQ")
        wait_until(lambda: len(Worker.all(connection=client)) == 2, "both workers are registered")
        assert [name for worker in Worker.all(connection=client) for name in worker.queue_names()] == [
            "batchfleet:stub"
        ] * 2


def test_nothing_without_owner_or_ttl_is_left(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """After a run and the end of all programs, what stays is bounded in number or has a TTL."""
    write_questions(tmp_path / "questions.jsonl", 200)
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "tidy")
        assert fleet.finish("producer") == 0
    names = (
        "batchfleet:queues",
        "batchfleet:wake",
        "batchfleet:epoch",
        "batchfleet:pending",
        "batchfleet:runs",
        "rq:queues",
    )
    # One stream per model and priority; limits.max_models bounds them.
    fleet_owned = {name.encode() for name in (*names, "batchfleet:questions:stub:0")}
    keys: Any = client.keys()
    without_ttl = {key for key in keys if client.ttl(key) == -1}
    assert without_ttl <= fleet_owned
