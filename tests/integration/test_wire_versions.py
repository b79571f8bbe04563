"""During an upgrade, messages of two wire versions are on the way.

Nothing is lost, and nobody guesses at what he cannot read.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio
from rich.console import Console

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.expiry import ExpirySweep
from batcher.maintenance.quarantine import Quarantine
from batcher.packing import Waiting
from batchfleet.status.advice import advise, waiting_for_newer
from batchfleet.status.model import WorkerStatus
from batchfleet.status.read import read_status
from batchfleet.status.view import draw
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.claims import HeldBatch, Intake
from gpu_worker.options import WorkerOptions
from gpu_worker.publisher import Publisher
from producer.collector import Collector
from producer.options import ProducerOptions
from producer.sender import Sender
from tests.builders import a_question, an_answer
from wire.address import RedisAddress
from wire.codec import encode_question, encode_record
from wire.connection import connect_async
from wire.errors import NewerMessageError
from wire.keys import Keys, queue_member
from wire.messages import WIRE_VERSION, Question

KEYS = Keys()
NEXT = WIRE_VERSION + 1


@pytest.fixture
async def aclient(redis_server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """The asyncio client that a worker has."""
    async with connect_async(RedisAddress(redis_server.url)) as connected:
        yield connected


def lead(client: redis.Redis) -> Leadership:
    """A batcher that leads."""
    leadership = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=60.0)
    leadership.hold()
    return leadership


def hand_over(client: redis.Redis, *questions: Question) -> None:
    """One batch of these questions, as an old or a new batcher makes it."""
    encoded = [encode_question(question) for question in questions]
    entries: Any = [client.xadd(KEYS.questions("stub", 0), {"q": data, "r": "run-1"}) for data in encoded]
    waiting = [Waiting(entry, data, 0.0) for entry, data in zip(entries, encoded, strict=True)]
    HandOver(client, KEYS, lead(client)).commit("stub", 0, [waiting])


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, this process is of the next version."""
    monkeypatch.setattr("wire.codec.WIRE_VERSION", NEXT)
    monkeypatch.setattr("gpu_worker.claims.WIRE_VERSION", NEXT)


class AWorker:
    """Its way in and out."""

    def __init__(self, name: str, client: redis.asyncio.Redis) -> None:
        self._intake = Intake(client, KEYS, "stub", name, WorkerOptions())
        self._publisher = Publisher(client, RedisAddress("unix://"), KEYS, "stub", run_ttl_s=60)

    async def claim(self) -> HeldBatch | None:
        batches = await self._intake.claim(1)
        return batches[0] if batches else None

    async def finish(self, batch: HeldBatch) -> None:
        """Answer what is readable, and end the batch."""
        for question, size in batch.questions:
            written: Any = [
                question.index,
                "answered",
                size,
                encode_record(an_answer(question.request_id, index=question.index, v=question.v)),
            ]
            await self._publisher.write({(question.run, question.epoch): written})
        await self._publisher.end([batch])


def a_collector(client: redis.Redis) -> Collector:
    """Of a run that a producer of wire version 1 opened."""
    return Collector(client, KEYS, "run-1", Sender(client, KEYS, "run-1", {}, 1, ProducerOptions()), ProducerOptions())


def ids(batch: HeldBatch | None) -> list[str]:
    """What a batch asks of its worker."""
    return [question.request_id for question, _ in batch.questions] if batch else []


async def test_what_an_old_worker_cannot_read_waits_for_a_new_one(
    client: redis.Redis, aclient: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of both: the old worker answers its part.

    A new one gets the rest, as a first attempt, and only the rest.
    """
    client.hset(KEYS.run("run-1"), "accepted", 2)
    client.set(KEYS.accepted("run-1"), b"\xc0")  # The bits of both.
    hand_over(client, a_question("old", index=0), a_question("new", index=1, v=NEXT))
    worker = AWorker("old", aclient)

    batch = await worker.claim()
    assert batch is not None
    assert ids(batch) == ["old"]
    await worker.finish(batch)
    assert await worker.claim() is None
    upgrade(monkeypatch)
    rest = await AWorker("new", aclient).claim()

    assert ids(rest) == ["new"]
    assert rest is not None
    assert rest.attempts == 1
    await worker.finish(rest)
    assert client.keys("rq:job:*") == []
    assert client.exists(KEYS.dead, KEYS.newer("stub"), KEYS.leases("stub")) == 0


async def test_an_old_workers_neighbours_are_served_first_come_first_served(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Batches that wait for a newer worker are in nobody's way."""
    hand_over(client, a_question("new", v=NEXT))
    hand_over(client, a_question("old"))
    worker = AWorker("old", aclient)

    first = await worker.claim()
    assert first is not None
    assert ids(first) == []
    await worker.finish(first)

    assert ids(await worker.claim()) == ["old"]


async def test_status_says_what_waits_for_a_newer_worker(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """In its JSON as figures, in its table and advice as words; and no more once such a worker runs."""
    hand_over(client, a_question("new", v=NEXT))
    hand_over(client, a_question("newest", v=NEXT + 1))
    client.sadd(KEYS.queues, queue_member("stub", 0))
    worker = AWorker("old", aclient)
    while batch := await worker.claim():
        await worker.finish(batch)

    status = read_status(client, KEYS)

    (queue,) = status.as_dict()["queues"]
    assert (queue["waiting_batches"], queue["newer_batches"], queue["newer_version"]) == (0, 2, NEXT + 1)
    shown = Console(file=io.StringIO(), width=200)
    shown.print(draw(status, advise(status)))
    assert isinstance(shown.file, io.StringIO)
    assert "0 and 2 newer" in shown.file.getvalue()
    assert (
        f"2 batches of stub can only be read by workers of wire version {NEXT + 1} or newer (none that runs does)"
        in shown.file.getvalue()
    )
    speaks = WorkerStatus("new", "running", "stub", wire_version=NEXT + 1)
    assert list(waiting_for_newer(replace(status, workers=(speaks,)))) == []


def test_an_old_batcher_neither_judges_nor_cancels_what_it_cannot_read(client: redis.Redis) -> None:
    """A suspect batch and a cancelled question of the next version stay where they are."""
    hand_over(client, a_question("new", v=NEXT))
    waiting: Any = client.lrange(KEYS.rq_queue("stub"), 0, -1)
    client.rename(KEYS.rq_queue("stub"), KEYS.suspects("stub"))
    client.xadd(KEYS.questions("stub", 0), {"q": encode_question(a_question("unwanted", v=NEXT)), "r": "run-1"})
    client.xadd(KEYS.questions("stub", 0), {"q": encode_question(a_question("also unwanted")), "r": "run-1"})
    client.sadd(KEYS.cancelled, "run-1")
    client.hset(KEYS.run("run-1"), mapping={"accepted": 3, "answered": 0, "failed": 0})
    leadership = lead(client)

    Quarantine(client, KEYS, leadership, max_bytes=1024, run_ttl_s=60).judge_all({"stub"})
    ending = ExpirySweep(client, KEYS, leadership, run_ttl_s=60, forget=lambda *_: None)
    ending.look([("stub", 0)])
    while ending.go_on(1.0):
        pass

    assert client.lrange(KEYS.suspects("stub"), 0, -1) == waiting
    assert client.exists(f"rq:job:{waiting[0].decode()}") == 1
    assert client.xlen(KEYS.questions("stub", 0)) == 1


def test_an_old_producer_leaves_records_of_the_next_version_to_the_next(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes those before, stops, and acknowledges no more than it has."""
    for index, version in enumerate((WIRE_VERSION, NEXT, WIRE_VERSION)):
        client.xadd(KEYS.records("run-1"), {"a": encode_record(an_answer(f"q{index}", index=index, v=version))})
    client.hset(KEYS.run("run-1"), "accepted", 3)
    old = a_collector(client)

    assert [record.request_id for record in old.receive(0.0)] == ["q0"]
    old.written()
    with pytest.raises(
        NewerMessageError, match=f"wire version {NEXT}; this program speaks 1 to {WIRE_VERSION}: upgrade it"
    ):
        old.receive(0.0)
    old.acknowledge()
    upgrade(monkeypatch)

    assert [record.request_id for record in a_collector(client).receive(0.0)] == ["q1", "q2"]


async def test_a_record_is_written_in_the_version_of_its_question(
    client: redis.Redis, aclient: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new worker answers an old producer so that it understands."""
    client.hset(KEYS.run("run-1"), "accepted", 1)
    client.setbit(KEYS.accepted("run-1"), 0, 1)
    hand_over(client, a_question("old"))
    upgrade(monkeypatch)
    worker = AWorker("new", aclient)
    batch = await worker.claim()
    assert batch is not None
    await worker.finish(batch)
    monkeypatch.undo()

    assert [record.request_id for record in a_collector(client).receive(0.0)] == ["old"]
