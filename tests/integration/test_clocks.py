"""A machine whose clock is wrong reckons by the Redis server's clock all the same."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
import redis
import redis.asyncio

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.heartbeat import Leases
from gpu_worker.options import WorkerOptions
from gpu_worker.worker import GpuWorker
from producer.options import ProducerOptions
from producer.sender import Sender
from wire.address import RedisAddress
from wire.clock import ServerClock
from wire.keys import Keys

KEYS = Keys()
WRONG_BY_S = 3600.0


@pytest.fixture(autouse=True)
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process' clock is an hour early."""
    shifted = {**vars(time), "time": lambda: time.time() + WRONG_BY_S}
    monkeypatch.setattr("wire.clock.time", SimpleNamespace(**shifted))


def is_right(clock: ServerClock) -> bool:
    """Within what a loaded machine may take for a round trip."""
    return abs(clock.now() - time.time()) < WRONG_BY_S / 10


def test_a_producer_learns_the_time_as_it_opens_its_run(client: redis.Redis) -> None:
    """Submission and deadline times go by it."""
    sender = Sender(client, KEYS, "run-1", {"questions": "x"}, 1, ProducerOptions())
    assert not is_right(sender.clock)

    sender.open()

    assert is_right(sender.clock)


def test_a_clock_that_is_set_during_a_run_changes_no_deadline(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer asks the server once and then sends for hours.

    Meanwhile its machine's clock may be put back by an hour.
    """
    sender = Sender(client, KEYS, "run-1", {"questions": "x"}, 1, ProducerOptions())
    sender.open()

    monkeypatch.undo()

    assert is_right(sender.clock)


async def test_a_worker_learns_the_time_before_its_first_batch(
    redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Or questions would expire whose deadline is far."""
    worker = GpuWorker(RedisAddress(redis_server.url), StubEngine(StubOptions()), WorkerOptions())

    await asyncio.to_thread(worker._wait_for_server, client)

    assert is_right(worker._clock)


async def test_a_worker_learns_the_time_with_every_heartbeat(redis_server: EmbeddedServer) -> None:
    """Clocks are put right and wrong while it runs."""
    clock = ServerClock()
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as aclient:
        await Leases(aclient, KEYS, "stub", "w", WorkerOptions(), clock).renew([], {"state": "running"})

    assert is_right(clock)
