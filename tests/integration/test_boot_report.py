"""What a worker that still boots leaves in Redis."""

from __future__ import annotations

import asyncio

import redis
import redis.asyncio

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.reports.boot_report import BootReport
from gpu_worker.reports.worker_report import Report
from tests.eventually import until
from wire.address import RedisAddress
from wire.keys import Keys

KEYS = Keys()


async def test_a_worker_that_dies_while_it_boots_leaves_nothing_for_ever(
    redis_server: EmbeddedServer, client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Every key has a TTL, though no other worker ever reports."""
    announcement = BootReport(aclient, RedisAddress(redis_server.url), "w", 60.0)
    announcing = asyncio.create_task(announcement.repeat(Report("stub", "stub", 4), lambda: None))
    await until(lambda: client.zcard(KEYS.workers), announcing)
    announcing.cancel()

    assert set(client.scan_iter("*")) == {KEYS.workers.encode(), KEYS.worker("w").encode()}
    assert client.pttl(KEYS.workers) > 0
    assert client.pttl(KEYS.worker("w")) > 0
