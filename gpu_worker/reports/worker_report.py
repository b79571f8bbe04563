"""What a worker says of itself, for `batchfleet status` and for health checks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_worker.engines.engine import READY, EngineState
from gpu_worker.gpus.devices import GpuUse
from gpu_worker.reports.counters import Counts
from gpu_worker.reports.rates import Rates, RateSample
from wire.messages import WIRE_VERSION

KINDS_SHOWN = 8


@dataclass(slots=True)
class Report:
    """A worker's state, kept current by those whose state it is.

    Attributes:
        state: booting, standby, running, waiting, draining, dead or unusable.
        waits_for: What a worker in standby lacks, or one that is booting or waiting waits for; else empty.
        gpus: UUIDs of its slice.
        gpu_use: How busy and how full these are; empty where NVML does not say.
        capacity: Most questions in flight.
        max_num_seqs: Most sequences that the engine works on at once.
        in_flight: Questions in the engine now.
        counts: What it has done since it started.
        metrics: HOST:PORT where it can be scraped; empty for nowhere.
        engine_state: Of its engine.
        clock_ahead_s: By how much this machine's clock is ahead of Redis'.
    """

    model: str
    engine: str
    capacity: int
    state: str = "booting"
    waits_for: str = ""
    gpus: tuple[str, ...] = ()
    gpu_use: tuple[GpuUse, ...] = ()
    max_num_seqs: int = 0
    in_flight: int = 0
    counts: Counts = field(default_factory=Counts)
    metrics: str = ""
    engine_state: Callable[[], EngineState] = lambda: READY
    clock_ahead_s: Callable[[], float] = lambda: 0.0
    now: Callable[[], float] = time.monotonic
    _rates: Rates = field(default_factory=Rates)
    _done: int = 0
    _idle_since: float | None = None

    @property
    def shown_state(self) -> str:
        """`waiting` for a worker that serves with an engine that waits."""
        return "waiting" if self.state == "running" and self.engine_state().kind == "waiting" else self.state

    def fields(self) -> dict[str, str]:
        """As Redis stores it; to be called every heartbeat. Idleness counts since the last report with work in it."""
        counts, now = self.counts, self.now()
        done = counts.answered + counts.failed
        # What was cancelled was taken out of the engine, which did not answer it.
        worked_on = done - counts.failures["cancelled"]
        self._rates.observe(RateSample(now, worked_on, counts.completion_tokens, working=self.in_flight > 0))
        answers_per_s, tokens_per_s = self._rates.per_s()
        engine = self.engine_state()
        waits_for = (
            engine.told(now) if engine.kind == "waiting" and self.state in {"booting", "running"} else self.waits_for
        )
        kinds = dict(counts.failures.most_common(KINDS_SHOWN))
        return {
            "pid": str(os.getpid()),
            "state": self.shown_state,
            "model": self.model,
            "engine": self.engine,
            "gpus": ",".join(self.gpus),
            "gpu_use": json.dumps([use.as_dict() for use in self.gpu_use]),
            "waits_for": waits_for,
            "capacity": str(self.capacity),
            "max_num_seqs": str(self.max_num_seqs),
            "in_flight": str(self.in_flight),
            "answered": str(counts.answered),
            "failed": str(counts.failed),
            "failures": json.dumps(kinds),
            "failure_examples": json.dumps({kind: counts.examples.get(kind, "") for kind in kinds}),
            "answers_per_s": f"{answers_per_s:.3f}",
            "tokens_per_s": f"{tokens_per_s:.1f}",
            "idle_s": f"{self._idle(now, done):.1f}",
            "wire_version": str(WIRE_VERSION),
            "metrics": self.metrics,
            "clock_ahead_s": f"{self.clock_ahead_s():.1f}",
        }

    def _idle(self, now: float, done: int) -> float:
        """Seconds for which a running worker has had nothing in flight, nor done anything since the last report."""
        worked, self._done = done != self._done, done
        if self.shown_state != "running" or self.in_flight or worked:
            self._idle_since = None
            return 0.0
        self._idle_since = now if self._idle_since is None else self._idle_since
        return now - self._idle_since
