"""A fleet that is full makes producers wait, say so, and share; nothing is lost by it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions
from tests.submissions import accept, answered

SMALL = {"BATCHFLEET_LIMITS_MAX_PENDING_QUESTIONS": "500", "BATCHFLEET_LIMITS_RUN_WINDOW": "500"}


def test_a_producer_that_finds_no_room_waits_says_so_and_goes_on(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """With the figures and the names of the settings; when there is room again everything is answered."""
    ids = write_questions(tmp_path / "questions.jsonl", 2000)
    accept(client, "others", [None] * 500)
    with Processes(redis_server.url, tmp_path, SMALL) as fleet:
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        wait_until(
            lambda: "waits for room in the fleet: 500 questions" in fleet.log("producer"), "it says that it waits"
        )
        assert "limits.max_pending_questions" in fleet.log("producer")
        fleet.batcher()
        fleet.worker()
        assert fleet.finish("producer") == 0
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_submit_no_wait_ends_when_the_fleet_is_full(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Exit code 3, what is full, and what to do; the same command resumes the run when there is room."""
    ids = write_questions(tmp_path / "questions.jsonl", 100)
    others = accept(client, "others", [None] * 500)
    arguments = [
        "submit",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "answers.jsonl"),
        "--model",
        "stub",
        "--no-wait",
    ]
    environ = {**SMALL, "BATCHFLEET_REDIS_URL": redis_server.url}

    refused = batchfleet(*arguments, environ=environ)
    with Processes(redis_server.url, tmp_path, SMALL) as fleet:
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: len(others.records()) == 500, "the others are answered")
        taken = batchfleet(*arguments, environ=environ)

    assert refused.returncode == 3
    assert "no room" in refused.stderr
    assert "500 questions" in refused.stderr
    assert "--no-wait" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert taken.returncode == 0, taken.stderr
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_two_producers_end_at_about_the_same_time(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Each with as many questions, and room for a fraction of them: neither lives on the other's account."""
    count = 4000
    producers = []
    with Processes(
        redis_server.url, tmp_path, {**SMALL, "BATCHFLEET_STUB_STEP_S": "0.005", "BATCHFLEET_STUB_MAX_TOKENS": "10"}
    ) as fleet:
        for name in ("left", "right"):
            write_questions(tmp_path / f"{name}.jsonl", count, prefix=name)
            asking = fleet.submit(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out", "--run", name, name=name)
            producers.append(asking)
        wait_until(
            lambda: all(client.exists(f"batchfleet:run:{name}:producer") for name in ("left", "right")),
            "both have begun",
        )
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: any(producer.poll() is not None for producer in producers), "one has all of its answers")
        done = min(lines_in(tmp_path / f"{name}.out") for name in ("left", "right"))
    print(f"when one of two producers had its {count} answers, the other had {done}")
    assert done > 0.8 * count


def test_ten_questions_do_not_wait_behind_a_hundred_thousand(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """They go before questions of the same priority that wait already.

    Stream, queue and engine are full of those, from an earlier run.
    """
    # Slow steps: how long the batcher takes on a busy machine counts for little beside them.
    clock = {"STUB_STEP_S": "0.1", "STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "40", "STUB_MAX_NUM_SEQS": "32"}
    accept(client, "huge", [None] * 100_000)
    with Processes(redis_server.url, tmp_path, {f"BATCHFLEET_{key}": value for key, value in clock.items()}) as fleet:
        fleet.batcher()
        fleet.worker()
        # By then the batcher has read what waits.
        wait_until(lambda: answered(client, "huge") > 100, "the huge run is being answered")
        waiting = 16 * int(client.llen("rq:queue:batchfleet:stub"))
        assert waiting > 900
        small = accept(client, "small", [None] * 10)
        before = answered(client, "huge")
        wait_until(lambda: len(small.records()) == 10, "the small run is answered")
        meanwhile = answered(client, "huge") - before
    print(f"while ten late questions waited, {meanwhile} of the earlier run were answered")
    assert {record.status for record in small.records()} == {"answered"}
    assert meanwhile < waiting


def test_a_late_small_run_is_not_starved_by_a_huge_early_one(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """It ends while the early one still has most of its questions before it."""
    write_questions(tmp_path / "huge.jsonl", 20_000)
    write_questions(tmp_path / "small.jsonl", 50, prefix="s")
    with Processes(redis_server.url, tmp_path, {**SMALL, "BATCHFLEET_STUB_STEP_S": "0.005"}) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "huge.jsonl", tmp_path / "huge.out", "--run", "huge", name="huge")
        wait_until(lambda: lines_in(tmp_path / "huge.out") > 100, "the huge one is on")
        fleet.submit(tmp_path / "small.jsonl", tmp_path / "small.out", "--run", "small", name="small")
        assert fleet.finish("small") == 0
        done = lines_in(tmp_path / "huge.out")
        fleet.kill("huge")
    print(f"the huge run had {done} of 20 000 answers when the small one ended")
    assert done < 10_000
