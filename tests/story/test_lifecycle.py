"""What becomes of questions that are overtaken, expire or are cancelled, and of workers that are sent home."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions
from tests.submissions import Submitter, accept, answered
from wire.codec import decode_question

CLOCKED = {"BATCHFLEET_STUB_STEP_S": "0.01", "BATCHFLEET_STUB_MIN_TOKENS": "10", "BATCHFLEET_STUB_MAX_TOKENS": "40"}


def status(url: str) -> dict[str, Any]:
    """What `status --json` prints."""
    found: dict[str, Any] = json.loads(batchfleet("status", "--redis", url, "--json").stdout)
    return found


def test_a_cancelled_run_ends_and_another_goes_on(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """Queued questions and those in the engine end as `cancelled`, and the other run does not notice."""
    write_questions(tmp_path / "unwanted.jsonl", 2000)
    ids = write_questions(tmp_path / "wanted.jsonl", 100, prefix="w")
    with Processes(redis_server.url, tmp_path, {**CLOCKED, "BATCHFLEET_STUB_MAX_TOKENS": "4000"}) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "unwanted.jsonl", tmp_path / "unwanted.out", "--run", "unwanted", name="unwanted")
        wait_until(
            lambda: any(worker["in_flight"] for worker in status(redis_server.url)["workers"]),
            "questions are in flight",
        )
        assert batchfleet("cancel", "unwanted", "--redis", redis_server.url).returncode == 0
        assert fleet.finish("unwanted") == 1, fleet.log("unwanted")
        fleet.submit(tmp_path / "wanted.jsonl", tmp_path / "wanted.out", name="wanted", STUB_MAX_TOKENS="40")
        fleet.kill("worker")
        fleet.worker("quick", STUB_MAX_TOKENS="40")
        assert fleet.finish("wanted") == 0
    unwanted = read_answers(tmp_path / "unwanted.out")
    assert len({line["id"] for line in unwanted}) == len(unwanted) == 2000
    kinds = Counter(line["error"]["kind"] for line in unwanted if line["status"] == "failed")
    assert set(kinds) == {"cancelled"}
    assert kinds["cancelled"] > 1000
    assert Counter(line["id"] for line in read_answers(tmp_path / "wanted.out")) == Counter(ids)


def test_a_cancelled_run_leaves_the_engine_without_waiting_for_a_heartbeat(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """The last question that an engine had gets its record long before the next heartbeat.

    The time since the cancellation is measured by Redis' clock, and heartbeats are 20 minutes apart.
    """
    heartbeat_s = 1200
    unwanted = accept(client, "unwanted", [None] * 200)
    entries: Any = client.xrange("batchfleet:questions:stub:0")
    submitted_at = {
        question.index: question.submitted_at for question in (decode_question(fields[b"q"]) for _, fields in entries)
    }
    leases = {
        "LEASES_HEARTBEAT_S": heartbeat_s,
        "LEASES_BATCH_S": 3600,
        "LEASES_LEADER_S": 3600,
        "LEASES_STALL_S": 3600,
    }
    endless = {"STUB_STEP_S": 0.05, "STUB_MIN_TOKENS": 100_000, "STUB_MAX_TOKENS": 100_000, "STUB_MAX_NUM_SEQS": 32}
    with Processes(
        redis_server.url, tmp_path, {f"BATCHFLEET_{key}": str(value) for key, value in {**leases, **endless}.items()}
    ) as fleet:
        fleet.batcher()
        fleet.worker()
        # And 16 more in its line, if there was a backlog when it looked for one.
        wait_until(lambda: client.zcard("batchfleet:leases:stub") >= 2, "the engine has all that it works on at once")
        assert batchfleet("cancel", "unwanted", "--redis", redis_server.url).returncode == 0
        wait_until(lambda: len(unwanted.records()) == 200, "all have their record")
    cancelled_at = int(client.hget("batchfleet:run:unwanted", "cancelled") or 0) / 1000
    failures = [record for record in unwanted.records() if record.status == "failed"]
    executed = [failure for failure in failures if failure.attempts]
    took_s = max(submitted_at[failure.index] + (failure.latency_s or 0.0) for failure in executed) - cancelled_at
    print(
        f"{len(executed)} questions had left the engine {1000 * took_s:.0f} ms after their run was cancelled, with a "
        f"heartbeat of {heartbeat_s} s"
    )
    assert {failure.error.kind for failure in failures} == {"cancelled"}
    assert len(failures) == 200
    assert len(executed) >= 32
    assert took_s < heartbeat_s / 2


def test_a_drained_worker_finishes_what_it_holds_and_ends(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Nothing is generated twice, and the other worker does the rest."""
    write_questions(tmp_path / "questions.jsonl", 600)
    answers = tmp_path / "answers.jsonl"
    # A busy machine is to let no lease lapse.
    with Processes(redis_server.url, tmp_path, {**CLOCKED, "BATCHFLEET_LEASES_BATCH_S": "100"}) as fleet:
        fleet.batcher()
        fleet.worker("one")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "drained")
        wait_until(lambda: lines_in(answers) > 20, "the first answers")
        # As a container's preStop does, which may return when the worker holds nothing any more.
        assert batchfleet("drain", "--here", "--redis", redis_server.url).returncode == 0
        assert not client.zcard("batchfleet:leases:stub")
        assert fleet.finish("one") == 0
        assert "gave back" not in fleet.log("one")
        fleet.worker("two")
        assert fleet.finish("producer") == 0
    assert {line["attempts"] for line in read_answers(answers)} == {1}
    assert client.hget("batchfleet:run:drained", "regenerated") == b"0"


def test_100_000_queued_questions_are_cancelled_at_once(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Without any worker; and the batcher keeps leading and handing over meanwhile."""
    accept(client, "unwanted", [None] * 100_000)
    wanted = accept(client, "wanted", [None] * 100)
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        wait_until(lambda: client.llen("rq:queue:batchfleet:stub") == 64, "batches wait")
        assert batchfleet("cancel", "unwanted", "--redis", redis_server.url).returncode == 0
        took_s = wait_until(
            lambda: client.hget("batchfleet:run:unwanted", "failed") == b"100000", "all have their record"
        )
        fleet.worker()
        wait_until(lambda: len(wanted.records()) == 100, "the other run is answered")
        assert client.get("batchfleet:epoch") == b"1"
    print(f"100 000 queued questions were cancelled in {took_s:.1f} s")
    assert client.hgetall("batchfleet:pending") == {b"questions": b"0", b"bytes": b"0"}
    assert {record.status for record in wanted.records()} == {"answered"}


def test_urgent_questions_overtake_a_backlog_of_100_000(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """They are answered before what waits in RQ's queue, which is full of others, as is the engine."""
    accept(client, "backlog", [None] * 100_000)
    urgent = Submitter(client, "urgent", 40)
    # Slow steps: how long the programs take on a busy machine counts for little beside them.
    clock = {"STUB_STEP_S": "0.2", "STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "40"}
    with Processes(redis_server.url, tmp_path, {f"BATCHFLEET_{key}": value for key, value in clock.items()}) as fleet:
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: answered(client, "backlog"), "the backlog is being answered")
        wait_until(lambda: client.llen("rq:queue:batchfleet:stub") == 64, "the queue is full")
        before = answered(client, "backlog")
        for _ in range(40):
            assert urgent.offer(1, priority=9).outcome == "ok"
            time.sleep(0.1)  # They come one by one: the pace is what is tried.
        wait_until(lambda: len(urgent.records()) == 40, "the urgent are answered")
        meanwhile = answered(client, "backlog") - before
    print(f"while 40 urgent questions waited, {meanwhile} of the backlog were answered")
    assert {record.status for record in urgent.records()} == {"answered"}
    assert meanwhile < 64 * 16


def test_an_urgent_question_overtakes_the_backlog(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """It waits for a place in the engine, not for thousands of others, through the commands that a person gives."""
    write_questions(tmp_path / "backlog.jsonl", 5000)
    (tmp_path / "urgent.jsonl").write_text('{"id": "now", "question": "Is it urgent?", "priority": 9}\n')
    with Processes(redis_server.url, tmp_path, {**CLOCKED, "BATCHFLEET_STUB_STEP_S": "0.1"}) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "backlog.jsonl", tmp_path / "backlog.out", name="backlog")
        wait_until(lambda: lines_in(tmp_path / "backlog.out") > 10, "the first answers")
        fleet.submit(tmp_path / "urgent.jsonl", tmp_path / "urgent.out", name="urgent")
        assert fleet.finish("urgent") == 0
        # The engine answers some 25 a second: the backlog takes more than three minutes, whatever the machine.
        assert lines_in(tmp_path / "backlog.out") < 4000
        fleet.kill("backlog")


def test_a_question_past_its_deadline_is_not_generated(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """It ends as `expired`; the others are answered."""
    lines = [
        {"id": f"q{number}", "question": f"Number {number}?", **({"deadline_s": 0.05} if number % 2 else {})}
        for number in range(20)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "deadlines")
        with redis.Redis.from_url(redis_server.url) as client:
            wait_until(lambda: client.hget("batchfleet:run:deadlines", "accepted") == b"20", "all are accepted")
        time.sleep(0.1)  # The deadline itself: nothing else tells that it has passed.
        fleet.worker()
        assert fleet.finish("producer") == 1
    outcome = {
        line["id"]: line.get("error", {}).get("kind", "answered") for line in read_answers(tmp_path / "answers.jsonl")
    }
    assert outcome == {f"q{number}": "expired" if number % 2 else "answered" for number in range(20)}


def test_a_run_ends_by_its_deadlines_without_any_worker(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """Whoever asked for answers within a second is soon told that there are none.

    It takes a few seconds, wherever the questions wait.
    """
    lines = [{"id": f"q{number}", "question": f"Number {number}?", "deadline_s": 1.0} for number in range(3000)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        assert fleet.finish("producer") == 1
        assert status(redis_server.url)["queues"][0]["waiting_batches"] == 0
    answers = read_answers(tmp_path / "answers.jsonl")
    assert Counter((line["error"]["kind"], line["attempts"]) for line in answers) == {("expired", 0): 3000}


def test_a_run_that_is_submitted_again_is_generated_once(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """While it is queued, while it runs, and when it is done.

    No id twice in the queue, in an engine, or among the records.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 400)
    answers, run = tmp_path / "answers.jsonl", "batchfleet:run:again"
    with Processes(redis_server.url, tmp_path, CLOCKED) as fleet:
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "again", name="first")
        wait_until(lambda: client.hget(run, "accepted") == b"400", "all are queued")
        fleet.kill("first")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "again", name="second")
        pid = fleet.started["second"].pid
        wait_until(lambda: f":{pid}:" in str(client.get(f"{run}:producer")), "the second has taken over")
        assert client.xlen("batchfleet:questions:stub:0") == 400
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: lines_in(answers) > 50, "the first answers")
        fleet.kill("second")
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "again", name="third")
        assert fleet.finish("third") == 0
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "again", name="fourth")
        assert fleet.finish("fourth") == 0
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    assert client.hmget(run, "accepted", "answered", "regenerated") == [b"400", b"400", b"0"]


def test_each_model_has_its_queue_and_its_workers(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """Questions name the model; a worker answers for its own only."""
    lines = [
        {"id": f"q{number}", "question": f"Number {number}?", "model": "left" if number % 2 else "right"}
        for number in range(60)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker("left", MODEL_GENERATOR_SETTINGS_MODEL="left")
        fleet.worker("right", MODEL_GENERATOR_SETTINGS_MODEL="right")
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        assert fleet.finish("producer") == 0
    answered_by = {line["id"]: line["model"] for line in read_answers(tmp_path / "answers.jsonl")}
    assert answered_by == {f"q{number}": "left" if number % 2 else "right" for number in range(60)}


def test_batches_hold_one_question_without_batching(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """`enable_batching: false` takes effect."""
    write_questions(tmp_path / "questions.jsonl", 30)
    with Processes(redis_server.url, tmp_path, {"BATCHFLEET_ENABLE_BATCHING": "false"}) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        assert fleet.finish("producer") == 0
        wait_until(lambda: status(redis_server.url)["batchers"][0]["batches"] == 30, "30 batches")


def test_what_is_no_question_is_put_aside(tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """Foreign entries and bytes in a stream of questions become dead letters with a reason.

    The fleet continues.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 30)
    client.sadd("batchfleet:queues", "stub:0")
    client.xadd("batchfleet:questions:stub:0", {"not": "ours"})
    client.xadd("batchfleet:questions:stub:0", {"q": b"\x80\x04nonsense", "r": "nobody"})
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        assert fleet.finish("producer") == 0
        wait_until(lambda: client.xlen("batchfleet:dead") == 2, "two dead letters")
        shown = batchfleet("dead", "list", "--redis", redis_server.url).stdout
    assert "without a question" in shown
    assert "malformed question" in shown
    assert client.xlen("batchfleet:questions:stub:0") == 0
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)
