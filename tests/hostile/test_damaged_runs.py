"""What a stranger, or a person by mistake, does to a run.

It continues, or its producer says what is wrong and what to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from batchfleet.cli.main import main
from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer import run_loop as run_module
from tests.builders import an_answer, epoch_of
from tests.hostile.attacks import KEYS, STREAM, last_entry, packed, wrong
from tests.processes import Processes, lines_in, read_answers, wait_until, write_questions
from wire.codec import encode_record

QUICK = {"BATCHFLEET_LEASES_HEARTBEAT_S": "0.2", "BATCHFLEET_LEASES_LEADER_S": "1", "BATCHFLEET_LEASES_BATCH_S": "2"}
SLOW_STUB = {**QUICK, "BATCHFLEET_STUB_STEP_S": "0.005"}


@pytest.fixture
def asked(tmp_path: Path, redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that submits `tmp_path`'s questions as run `r`.

    It runs in this process, and does not wait long for what does not come.
    """
    monkeypatch.setattr(run_module, "QUIET_S", 0.5)
    monkeypatch.setattr(run_module, "CHECK_S", 0.1)
    files = [str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl")]
    return ["submit", *files, "--model", "stub", "--run", "r", "--redis", redis_server.url, "--quiet"]


def damage_type(client: redis.Redis, key: str) -> None:
    """Something of another type under a key of the run."""
    wrong(client, key, KEYS.type_of(key) or "?")


def damage_count(client: redis.Redis, key: str) -> None:
    """A count that is no number."""
    client.hset(key, "cursor", "x")


def damage_records(client: redis.Redis, key: str) -> None:
    """Garbage among the records, and records of another run and of no question."""
    for data in (
        b"\xff",
        msgpack.packb({"v": 2**40}),
        encode_record(an_answer(run="other")),
        encode_record(an_answer(run="r", index=2**31)),
    ):
        client.xadd(key, {"a": data})
    client.xadd(key, {"not": "ours"})


def fill_up(client: redis.Redis, key: str) -> None:
    """An entry with the last id that a stream can have."""
    last_entry(client, Path("nowhere"), key=key)


def remove(client: redis.Redis, key: str) -> None:
    """Deleted by hand."""
    client.delete(key)


DAMAGES = {
    "the run's hash is a string": (damage_type, KEYS.run("r")),
    "a count is no number": (damage_count, KEYS.run("r")),
    "the hash is deleted": (remove, KEYS.run("r")),
    "the ledger of accepted questions is a list": (damage_type, KEYS.accepted("r")),
    "the ledger of answered questions is a list": (damage_type, KEYS.done("r")),
    "the records are a string": (damage_type, KEYS.records("r")),
    "the producer's claim is a list": (damage_type, KEYS.producer("r")),
    "the records can take no more": (fill_up, KEYS.records("r")),
    "garbage among the records": (damage_records, KEYS.records("r")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_whose_keys_are_damaged_ends_with_a_line_for_each_question(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis, damage: str
) -> None:
    """Its producer asks again what has no line; nothing is lost and nothing doubled."""
    ids = write_questions(tmp_path / "questions.jsonl", 300)
    answers = tmp_path / "answers.jsonl"
    do, key = DAMAGES[damage]
    with Processes(redis_server.url, tmp_path, SLOW_STUB) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "r")
        wait_until(lambda: lines_in(answers) > 30, "the first answers")
        do(client, key)
        assert fleet.finish("producer") == 0, fleet.log("producer")
        assert fleet.started["batcher"].poll() is None
        assert fleet.started["worker"].poll() is None
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)


def test_an_unreadable_question_whose_place_is_known_ends_as_a_failure(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis, asked: list[str]
) -> None:
    """Its run does not wait for it, and its bytes are kept among the dead letters."""
    ids = write_questions(tmp_path / "questions.jsonl", 5)
    with Processes(redis_server.url, tmp_path, QUICK) as fleet:
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "r")
        wait_until(lambda: client.xlen(STREAM) == 5, "all are queued")
        entries: Any = client.xrange(STREAM, count=1)
        client.xdel(STREAM, entries[0][0])
        client.xadd(
            STREAM,
            {
                "q": packed(
                    v=0, run="r", epoch=epoch_of(client, "r"), index=0, request_id=ids[0], prompt="x" * 200_000
                ),
                "r": "r",
            },
        )
        fleet.batcher()
        fleet.worker()
        assert fleet.finish("producer") == 1, fleet.log("producer")
        assert main(["dead", "list", "--redis", redis_server.url]) == 0
    kinds = {line["id"]: line.get("error", {}).get("kind") for line in read_answers(tmp_path / "answers.jsonl")}
    assert kinds == {ids[0]: "unreadable", **dict.fromkeys(ids[1:])}
    letters: Any = client.xrange(KEYS.dead)
    assert len(letters[0][1][b"data"]) > 200_000
    assert main(["dead", "retry", letters[0][0].decode(), "--redis", redis_server.url]) == 2
    assert main(asked) == 1


def take_a_batch(client: redis.Redis) -> None:
    """A batch job that waits is deleted by hand."""
    queue = KEYS.rq_queue("stub")
    wait_until(lambda: client.llen(queue) > 0, "a batch waits")
    batch: Any = client.lindex(queue, 0)
    client.delete(f"rq:job:{batch.decode()}")


def take_a_question(client: redis.Redis) -> None:
    """A queued question is deleted by hand, with the stream it is in."""
    wait_until(lambda: client.xlen(STREAM) > 0, "questions wait")
    client.delete(STREAM)


@pytest.mark.parametrize("take", [take_a_batch, take_a_question])
def test_a_producer_does_not_wait_for_what_is_nowhere(
    tmp_path: Path,
    redis_server: EmbeddedServer,
    client: redis.Redis,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    take: Callable[[redis.Redis], None],
) -> None:
    """It ends with code 3 and says what to do; when that is done, the same command asks what is missing."""
    ids = write_questions(tmp_path / "questions.jsonl", 40)
    with Processes(redis_server.url, tmp_path, QUICK) as fleet:
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "r")
        if take is take_a_batch:
            fleet.batcher()
        take(client)
        fleet.kill("producer")
        if take is not take_a_batch:
            fleet.batcher()
        fleet.worker()

        assert main(asked) == 3
        said = capsys.readouterr().err
        assert "`batchfleet forget r`" in said
        assert main(["forget", "r", "--redis", redis_server.url]) == 0
        assert main(asked) == 0
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_records_that_somebody_took_are_noticed(
    tmp_path: Path,
    redis_server: EmbeddedServer,
    client: redis.Redis,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All is answered, but the answers were taken out of Redis before the producer had them."""
    ids = write_questions(tmp_path / "questions.jsonl", 20)
    with Processes(redis_server.url, tmp_path, QUICK) as fleet:
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "r")
        wait_until(lambda: client.xlen(STREAM) == 20, "all are queued")
        fleet.kill("producer")
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: client.xlen(KEYS.records("r")) == 20, "all are answered")
        client.xtrim(KEYS.records("r"), maxlen=0, approximate=False)

        assert main(asked) == 3
        assert "removed from Redis" in capsys.readouterr().err
        assert main(["forget", "r", "--redis", redis_server.url]) == 0
        assert main(asked) == 0
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_dead_letters_are_tried_again_or_say_why_not(
    tmp_path: Path,
    redis_server: EmbeddedServer,
    client: redis.Redis,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A whole batch that can be read by now is queued again.

    A letter that was cut, is a whole key, or is nobody's, says so.
    """

    def dead(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["dead", *arguments, "--redis", redis_server.url])
        said = capsys.readouterr()
        return code, said.out + said.err

    write_questions(tmp_path / "questions.jsonl", 10)
    with Processes(redis_server.url, tmp_path, QUICK) as fleet:
        fleet.batcher()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "r")
        wait_until(lambda: client.llen(KEYS.rq_queue("stub")) == 1, "one batch")
        batch: Any = client.lpop(KEYS.rq_queue("stub"))
        data: Any = client.hget(f"rq:job:{batch.decode()}", "data")
        client.delete(f"rq:job:{batch.decode()}")
        whole: Any = client.xadd(
            KEYS.dead, {"batch": batch, "reason": "of a newer version", "data": data, "where": "?", "bytes": len(data)}
        )
        cut: Any = client.xadd(
            KEYS.dead, {"batch": batch, "reason": "?", "data": data[:100], "where": "?", "bytes": len(data)}
        )
        foreign: Any = client.xadd(KEYS.dead, {"batch": "", "reason": "?", "data": packed(), "where": "?"})
        client.rpush(KEYS.pending, "x") if not client.exists(KEYS.pending) else damage_type(client, KEYS.pending)
        wait_until(lambda: client.xlen(KEYS.dead) == 4, "the key is a letter")
        aside = json.loads(dead("list", "--json")[1].splitlines()[-1])
        fleet.worker()

        assert dead("retry", cut.decode())[0] == 2
        assert "was cut from" in dead("retry", cut.decode())[1]
        assert "belongs to no run" in dead("retry", foreign.decode())[1]
        assert "is a whole key" in dead("retry", aside["id"])[1]
        assert client.exists(aside["aside"])
        assert dead("drop", aside["id"])[0] == 0
        assert not client.exists(aside["aside"])
        assert dead("retry", whole.decode()) == (0, f"{whole.decode()}: 10 questions wait for a worker again\n")
        assert fleet.finish("producer") == 0, fleet.log("producer")
        assert "no dead letter" in dead("retry", whole.decode())[1]
    assert lines_in(tmp_path / "answers.jsonl") == 10
    assert main(asked) == 0
