"""The Redis server's clock was set back by an hour: what it then finds are leases and reports from the future."""

from __future__ import annotations

import asyncio
from typing import Any

import redis
import redis.asyncio

from batcher.maintenance.reaper import Reaper
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.host_control import HostReporter
from gpu_worker.gpus.devices import imagine
from gpu_worker.gpus.slice_claim import SliceClaim
from gpu_worker.gpus.slices import SliceOptions
from gpu_worker.heartbeat import Leases
from gpu_worker.options import WorkerOptions
from tests.integration.test_fences import KEYS, OPTIONS, batch_jobs, claim_one
from tests.processes import PATIENCE_S, wait_until
from wire.address import RedisAddress
from wire.clock import ServerClock

HOUR_MS = 3_600_000


def ahead(client: redis.Redis, by_ms: int = HOUR_MS) -> int:
    """What the server's clock said before."""
    seconds: Any = client.time()[0]
    return int(seconds) * 1000 + by_ms


async def test_the_batch_of_a_dead_worker_is_taken_back_soon(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """Its lease would last an hour more; no worker makes such a one, so it is shortened."""
    batch = await claim_one(client, aclient, "dead")
    client.zadd(KEYS.leases("stub"), {batch.batch_id: ahead(client)})
    reaper = Reaper(client, KEYS, heartbeat_s=0.0, lease_s=0.2)

    wait_until(lambda: reaper.take_back({"stub"}), "its lease has lapsed")

    assert batch_jobs(client) == [batch.batch_id.encode()]


async def test_a_living_worker_keeps_its_batch(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """Nothing is taken at once: the next heartbeat makes its lease an ordinary one."""
    batch = await claim_one(client, aclient, "alive")
    client.zadd(KEYS.leases("stub"), {batch.batch_id: ahead(client)})

    taken = Reaper(client, KEYS, heartbeat_s=0.0, lease_s=60.0).take_back({"stub"})
    leases = Leases(aclient, KEYS, "stub", "alive", WorkerOptions(lease_s=60.0), ServerClock())
    heard = await leases.renew([batch], {"state": "running"})

    assert (taken, heard.lost) == (0, [])
    lapses: Any = client.zscore(KEYS.leases("stub"), batch.batch_id)
    assert lapses <= ahead(client, 61_000)


async def test_workers_and_hosts_that_died_are_forgotten(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """They would count among the living for an hour, for who takes how much and who may take isolated batches."""
    client.zadd(KEYS.workers, {"dead": ahead(client)})
    client.zadd(KEYS.hosts, {"dead": ahead(client)})

    await Leases(aclient, KEYS, "stub", "alive", OPTIONS, ServerClock()).renew([], {"state": "running"})
    host = HostReporter(client, KEYS, 1.0)
    host.report({"workers": 1, "leaving": 0})

    assert client.zrange(KEYS.workers, 0, -1) == [b"alive"]
    assert client.zrange(KEYS.hosts, 0, -1) == [host.name.encode()]


async def test_a_gpu_whose_worker_died_is_free_soon(
    client: redis.Redis,
    aclient: redis.asyncio.Redis,
    redis_server: EmbeddedServer,
    monkeypatch: Any,  # noqa: ANN401
) -> None:
    """Keys also expire by the server's clock: a claim with an hour to live is cut to a lease.

    A living worker would renew it.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    client.set(KEYS.gpu("GPU-0"), "dead", px=HOUR_MS)
    options = SliceOptions(1, imagine("GPU-0"))
    claim = SliceClaim(aclient, RedisAddress(redis_server.url), "next", options, lease_s=0.5, heartbeat_s=0.1)

    async with (
        asyncio.timeout(PATIENCE_S),
        claim.claimed(asyncio.Event(), lambda _: None, lambda _: None) as gpus,
    ):
        assert gpus == ("GPU-0",)
