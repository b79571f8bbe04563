"""Redis is there, and slow: far away, or behind a network that answers of megabytes fill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import redis
import redis.asyncio

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.key_repair import Mender
from batcher.packing import Waiting
from batcher.stream_reader import READ_BYTES, StreamReader
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.options import WorkerOptions
from gpu_worker.publisher import Publisher, RunEpoch
from gpu_worker.worker import GpuWorker
from tests.builders import a_question
from tests.eventually import until
from tests.submissions import Submitter
from wire.address import RedisAddress
from wire.codec import encode_question
from wire.keys import Keys

KEYS = Keys()
LEASE_S = 2.5
CAPACITY = 8
AT_ONCE = 4


class Stalled(Publisher):
    """Its writes do not come through until they are let through."""

    let_through = asyncio.Event()

    async def write(self, by_run: Mapping[RunEpoch, list[bytes | int | str]]) -> None:
        await self.let_through.wait()
        await super().write(by_run)


def hand_over(client: redis.Redis, batches: int) -> None:
    """So many accepted batches of two questions wait for a worker."""
    assert Submitter(client, "run-1", 2 * batches).offer(2 * batches).outcome == "ok"
    entries: Any = client.xrange(KEYS.questions("stub", 0))
    waiting = [Waiting(entry, fields[b"q"], 0.0) for entry, fields in entries]
    leader = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
    leader.hold()
    HandOver(client, KEYS, leader).commit(
        "stub", 0, [waiting[start : start + 2] for start in range(0, len(waiting), 2)]
    )


@contextlib.asynccontextmanager
async def a_worker(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[None]]:
    """A worker whose records do not come through, with an engine whose answers cost nothing."""
    monkeypatch.setattr(Stalled, "let_through", asyncio.Event())
    monkeypatch.setattr("gpu_worker.service.Publisher", Stalled)
    monkeypatch.setattr("gpu_worker.publisher.RECORDS_PER_WRITE", AT_ONCE)
    options = WorkerOptions(capacity=CAPACITY, lease_s=LEASE_S, heartbeat_s=LEASE_S / 10)
    worker = GpuWorker(RedisAddress(server.url), StubEngine(StubOptions(max_num_seqs=CAPACITY)), options)
    running = asyncio.create_task(worker.run())
    try:
        yield running
    finally:
        Stalled.let_through.set()
        worker.stop()
        worker.stop()
        await running


async def test_a_worker_begins_nothing_while_its_records_do_not_come_through(
    redis_server: EmbeddedServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine faster than the way to Redis would fill its worker's memory with records.

    It would also keep questions from others.
    """
    batches = 100
    hand_over(client, batches)

    async with a_worker(redis_server, monkeypatch) as running:
        await until(lambda: client.zcard(KEYS.leases("stub")), running)
        await asyncio.sleep(LEASE_S)
        held: Any = client.zcard(KEYS.leases("stub"))
        Stalled.let_through.set()
        await until(lambda: client.xlen(KEYS.records("run-1")) == 2 * batches, running)

    # One write on its way, as much as another, and what the engine held when that was there.
    assert 2 * held <= 2 * AT_ONCE + 2 * CAPACITY


async def test_a_batch_is_kept_until_its_records_have_come_through(
    redis_server: EmbeddedServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds however long the records take.

    A batch taken back meanwhile would be answered again, and its living worker would be counted as dead.
    """
    hand_over(client, 1)

    async with a_worker(redis_server, monkeypatch) as running:
        await until(lambda: client.zcard(KEYS.leases("stub")), running)
        await asyncio.sleep(2 * LEASE_S)
        clock: Any = client.time()
        leases: Any = client.zrange(KEYS.leases("stub"), 0, -1, withscores=True)
        ((_, lapses_ms),) = leases
        Stalled.let_through.set()
        await until(lambda: not client.exists(KEYS.leases("stub")), running)

    assert lapses_ms > 1000 * clock[0] + clock[1] / 1000
    assert client.xlen(KEYS.records("run-1")) == 2


def test_a_look_at_many_keys_takes_few_round_trips(client: redis.Redis) -> None:
    """The batcher hands nothing over meanwhile.

    With 20 ms for a round trip and one for each key, its lease would end before the look does.
    """
    for number in range(200):
        Submitter(client, f"run-{number}", 1).offer(1)
        client.delete(KEYS.producer(f"run-{number}"))
    mender = Mender(client, KEYS, max_dead_letters=100)
    before: Any = client.info("stats")["total_reads_processed"]

    mender.search()

    after: Any = client.info("stats")["total_reads_processed"]
    assert after - before < 40


def test_the_first_read_of_giants_is_bounded_too(client: redis.Redis) -> None:
    """A batcher that starts takes no more questions into its memory than later on.

    It does not know yet how large the waiting questions are.
    """
    encoded = encode_question(a_question(prompt="x" * 1_000_000))
    for _ in range(60):
        client.xadd(KEYS.questions("stub", 0), {"q": encoded})
    client.sadd(KEYS.queues, "stub:0")
    inbox = StreamReader(client, KEYS, batch_questions=16, max_question_bytes=4_000_000, max_queues=10)
    inbox.restart()

    inbox.read(0.0)

    assert 0 < inbox.waiting["stub", 0].bytes <= 2 * READ_BYTES
