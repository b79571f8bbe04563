"""What a worker says of itself before it serves: that it waits for GPUs, or that its engine boots."""

from __future__ import annotations

from collections.abc import Mapping

import redis.asyncio

from gpu_worker.leases import DRAIN, REPORT_LIVES_FOR_HEARTBEATS
from wire.connection import load_script
from wire.keys import Keys


class Announcement:
    """One worker's report, until its heartbeat (`gpu_worker.leases`) takes over."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, worker: str, heartbeat_s: float) -> None:
        self._client = client
        self._keys = [keys.workers, keys.worker(worker), keys.control(worker)]
        self._worker = worker
        self._ttl_ms = int(1000 * heartbeat_s * REPORT_LIVES_FOR_HEARTBEATS)
        self._announce = client.register_script(load_script("gpu_worker", "announce"))

    async def make(self, report: Mapping[str, str]) -> bool:
        """Report; returns whether the worker is asked to stop."""
        fields = [part for pair in report.items() for part in pair]
        asked = await self._announce(keys=self._keys, args=[self._worker, self._ttl_ms, *fields])
        return bool(asked == DRAIN.encode())
