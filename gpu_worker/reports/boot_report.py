"""What a worker says of itself before it serves: that it waits for GPUs, or that its engine boots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import redis.asyncio

from gpu_worker.heartbeat import DRAIN, REPORT_LIVES_FOR_HEARTBEATS
from gpu_worker.reports.worker_report import Report
from wire.address import RedisAddress
from wire.errors import QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated
from wire.scripts import load_script

log = logging.getLogger(__name__)

LAST_WORDS_S = 2.0
"""How long a worker that leaves tries to be forgotten."""


class BootReport:
    """One worker's report, until its heartbeat (`gpu_worker.heartbeat`) takes over."""

    def __init__(self, client: redis.asyncio.Redis, address: RedisAddress, worker: str, heartbeat_s: float) -> None:
        keys = Keys(address.namespace)
        self._client = client
        self._address = address
        self._keys = [keys.workers, keys.worker(worker), keys.control(worker)]
        self._worker = worker
        self._heartbeat_s = heartbeat_s
        self._announce = client.register_script(load_script("gpu_worker.reports", "announce"))

    async def repeat(self, report: Report, drain: Callable[[], None]) -> None:
        """Report every heartbeat until cancelled, or until the worker is asked to stop; then `drain` is called."""
        while True:
            try:
                with translated(self._address):
                    fields = [part for pair in report.fields().items() for part in pair]
                    ttl_ms = int(1000 * self._heartbeat_s * REPORT_LIVES_FOR_HEARTBEATS)
                    asked = await self._announce(keys=self._keys, args=[self._worker, ttl_ms, *fields])
            except QueueUnavailableError as error:
                log.warning("not reported: %s", error)
            else:
                if asked == DRAIN.encode():
                    log.info("asked to drain")
                    drain()
                    return
            await asyncio.sleep(self._heartbeat_s)

    async def withdraw(self) -> None:
        """Remove the report at once; without Redis, its TTL ends it."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                with translated(self._address):
                    await self._client.zrem(self._keys[0], self._worker)
                    await self._client.delete(*self._keys[1:])
        except (TimeoutError, QueueUnavailableError) as error:
            log.info("deregistration failed: %s", error or "timeout")
