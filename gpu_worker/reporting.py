"""What a worker says of itself, for `batchfleet status` and for health checks."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field

RATE_WINDOW_S = 30.0


@dataclass(slots=True)
class Report:
    """A worker's state, kept current by those whose state it is.

    Attributes:
        state: booting, standby, running, draining or dead.
        waits_for: What a worker in standby lacks; else empty.
        gpus: UUIDs of its slice.
        capacity: Most questions in flight.
        in_flight: Questions in the engine now.
        answered, failed: Records made since the worker started.
    """

    model: str
    engine: str
    capacity: int
    state: str = "booting"
    waits_for: str = ""
    gpus: tuple[str, ...] = ()
    in_flight: int = 0
    answered: int = 0
    failed: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def fields(self) -> dict[str, str]:
        """As Redis stores it. The rate is that of the last `RATE_WINDOW_S` seconds."""
        return {
            "pid": str(os.getpid()),
            "state": self.state,
            "model": self.model,
            "engine": self.engine,
            "gpus": ",".join(self.gpus),
            "waits_for": self.waits_for,
            "capacity": str(self.capacity),
            "in_flight": str(self.in_flight),
            "answered": str(self.answered),
            "failed": str(self.failed),
            "answers_per_s": f"{self._rate():.3f}",
        }

    def _rate(self) -> float:
        now, done = time.monotonic(), self.answered + self.failed
        self._recent.append((now, done))
        while len(self._recent) > 1 and now - self._recent[0][0] > RATE_WINDOW_S:
            self._recent.popleft()
        began, before = self._recent[0]
        return (done - before) / (now - began) if now > began else 0.0
