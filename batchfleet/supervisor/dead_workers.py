"""The GPUs of this host's workers that have died: others need not wait until the leases lapse."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from batchfleet.status.workers import WorkerSnapshot
from gpu_worker.gpus.slice_claim import end_leases
from wire.keys import Keys


class DeadWorkers:
    """Told what is seen of the workers that this process has started, it ends the leases of those that are gone."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._alive: dict[str, WorkerSnapshot] = {}

    def look(self, seen: Iterable[WorkerSnapshot], living: frozenset[int]) -> None:
        """End the leases of the workers that were once seen alive and whose processes have ended.

        Args:
            seen: All of this host that report; a dead one does so for a while yet.
            living: Process ids of our own workers that live.
        """
        for worker in [worker for worker in self._alive.values() if worker.pid not in living]:
            if worker.gpus:
                end_leases(self._client, self._keys, worker.name, worker.gpus)
            del self._alive[worker.name]
        self._alive |= {worker.name: worker for worker in seen if worker.pid in living}
