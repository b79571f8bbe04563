"""What the engines of this host have shown so far: how long they boot, and what they do in a second."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from batchfleet.status.workers import WorkerSnapshot

log = logging.getLogger(__name__)

SERVING = frozenset({"running", "waiting"})


@dataclass(slots=True)
class EngineMeasures:
    """Kept current by `observe`; 0 for what is not known yet.

    Attributes:
        capacity: Questions that a worker keeps in flight.
        per_s: Questions that a worker with enough to do answers in a second, lately or when one last had.
        boot_s: How long the last boot took, from the start of its process until it took work.
    """

    capacity: int = 0
    per_s: float = 0.0
    boot_s: float = 0.0
    _booting_since: dict[int, float | None] = field(default_factory=dict)

    def observe(self, pids: Collection[int], seen: Sequence[WorkerSnapshot], now_s: float) -> None:
        """Learn from what the workers of these processes say."""
        self._booting_since = {pid: self._booting_since.get(pid, now_s) for pid in pids}
        for worker in seen:
            since_s = self._booting_since.get(worker.pid)
            if worker.state == "standby":
                # It waits for GPUs, and boots then.
                self._booting_since[worker.pid] = now_s
            elif worker.state in SERVING and since_s is not None:
                self.boot_s = now_s - since_s
                self._booting_since[worker.pid] = None
                log.info("%s took %.1f s to boot", worker.name, self.boot_s)
        self.capacity = max((worker.capacity for worker in seen), default=0) or self.capacity
        # One that has little to do answers as slowly as it is asked.
        busy = [
            worker.answers_per_s
            for worker in seen
            if worker.answers_per_s > 0 and 2 * worker.in_flight >= worker.capacity
        ]
        if busy:
            self.per_s = sum(busy) / len(busy)
