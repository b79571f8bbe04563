"""A run that was forgotten, and whose name is used again, leaves nothing in the new one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.builders import a_question, an_answer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions
from wire.codec import encode_record
from wire.keys import Keys
from wire.question_state import ask_states, read_states
from wire.scripts import load_script

KEYS = Keys()
SLOW = {"STUB_STEP_S": "0.02", "STUB_MAX_NUM_SEQS": "16"}


@pytest.mark.parametrize("place", ["queue", "engine"])
def test_old_answers_do_not_get_into_a_new_file(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis, place: str
) -> None:
    """Wherever the forgotten run's questions were, the file has each of the new answers once.

    `batchfleet verify` says the same.
    """
    write_questions(tmp_path / "old.jsonl", 200, prefix="old")
    new = write_questions(tmp_path / "new.jsonl", 200, prefix="new")
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        if place == "engine":
            fleet.worker(**SLOW)
        fleet.submit(tmp_path / "old.jsonl", tmp_path / "old-answers.jsonl", "--run", "nightly", name="old")
        wait_until(lambda: client.hget(KEYS.run("nightly"), "accepted") == b"200", "acceptance")
        if place == "engine":
            wait_until(lambda: lines_in(tmp_path / "old-answers.jsonl"), "an answer")
            assert client.zcard(KEYS.leases("stub")) > 0
        fleet.kill("old", signal.SIGINT)
        assert fleet.finish("old") == 130
        assert batchfleet("forget", "nightly", "--redis", redis_server.url).returncode == 0

        fleet.submit(tmp_path / "new.jsonl", tmp_path / "new-answers.jsonl", "--run", "nightly", name="new")
        wait_until(lambda: client.hget(KEYS.run("nightly"), "accepted") == b"200", "acceptance")
        if place == "queue":
            fleet.worker(**SLOW)

        assert fleet.finish("new") == 0
        wait_until(lambda: client.hget(KEYS.pending, "questions") == b"0", "the end of the old questions")
    assert sorted(line["id"] for line in read_answers(tmp_path / "new-answers.jsonl")) == sorted(new)
    assert client.hmget(KEYS.run("nightly"), "answered", "regenerated") == [b"200", b"0"]
    assert not client.exists(KEYS.dead)


def publish(client: redis.Redis, epoch: str) -> Any:  # noqa: ANN401 (the script's own return values)
    """A worker writes the record of question 0 of the run of this epoch."""
    record = encode_record(an_answer("q0", index=0, epoch=epoch))
    names = [KEYS.run("run-1"), KEYS.done("run-1"), KEYS.records("run-1"), KEYS.pending, KEYS.runs]
    return client.register_script(load_script("wire", "publish"))(
        keys=names, args=["run-1", 60, epoch, 0, "answered", 10, record]
    )


def test_a_record_of_the_earlier_run_is_dropped(client: redis.Redis) -> None:
    """It changes nothing of the new run, and its question counts as pending no more.

    That of the new run comes after it and is the first.
    """
    client.hset(KEYS.run("run-1"), mapping={"epoch": "e2", "accepted": 1})
    client.setbit(KEYS.accepted("run-1"), 0, 1)
    client.hset(KEYS.pending, mapping={"questions": 2, "bytes": 20})
    before = client.hgetall(KEYS.run("run-1"))

    assert publish(client, "e1") == -1

    assert client.hgetall(KEYS.run("run-1")) == before
    assert client.hgetall(KEYS.pending) == {b"questions": b"1", b"bytes": b"10"}
    assert not client.exists(KEYS.records("run-1"), KEYS.done("run-1"))
    assert publish(client, "e2") == 1
    assert client.xlen(KEYS.records("run-1")) == 1


def test_a_question_of_the_earlier_run_has_no_place_in_the_new_one(client: redis.Redis) -> None:
    """Neither is it taken for one that has its record, nor for one that somebody waits for."""
    client.hset(KEYS.run("run-1"), "epoch", "e2")
    client.setbit(KEYS.accepted("run-1"), 0, 1)
    client.setbit(KEYS.done("run-1"), 0, 1)
    questions = [a_question(epoch="e1"), a_question(epoch="e2")]

    with client.pipeline() as pipe:
        ask_states(pipe, KEYS, questions)
        states = read_states(questions, pipe.execute())

    assert states == [(False, False), (True, True)]
