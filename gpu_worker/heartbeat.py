"""Keeps what this worker holds: leases are renewed by the engine's progress, not by the process being alive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import redis.asyncio

from gpu_worker.claims import HeldBatch
from gpu_worker.engines.engine import Engine
from gpu_worker.options import WorkerOptions
from wire.clock import ServerClock
from wire.errors import EngineDeadError
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.scripts import load_script

log = logging.getLogger(__name__)

REPORT_LIVES_FOR_HEARTBEATS = 10
DRAIN = "drain"
LONGEST_LOOK_S = 5.0


class Progress:
    """Whether the engine moves. Pure but for the clock it is given."""

    def __init__(self, engine: Engine, stall_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._stall_s = stall_s
        self._now = now
        self._count = engine.progress()
        self._looked_at = now()
        self._still_s = 0.0

    def check(self, *, busy: bool) -> None:
        """Take note of what the engine did since the last look.

        Raises:
            EngineDeadError: It is dead, or has work and made no progress for `stall_s` seconds.
        """
        self._engine.check()
        # A process that was stopped for an hour did not see its engine stall for an hour.
        self._still_s += min(self._now() - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = self._now()
        count = self._engine.progress()
        if count != self._count or not busy:
            self._count = count
            self._still_s = 0.0
        if self._still_s >= self._stall_s:
            raise EngineDeadError(
                f"the engine has questions and has made no progress for {self._still_s:.0f} s (leases.stall_s = "
                f"{self._stall_s:g})"
            )


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What a heartbeat brought back.

    Attributes:
        lost: Batches that are no longer ours.
        drain: We are asked to stop.
        isolate: It is our turn to take isolated batches.
        cancelled: Runs that nobody wants any more, as `run_member` names them, and single questions, as
            `withdrawn_member` does.
    """

    lost: list[HeldBatch]
    drain: bool
    isolate: bool
    cancelled: frozenset[str]


class Leases:
    """One worker's heartbeat."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        model: str,
        worker: str,
        options: WorkerOptions,
        clock: ServerClock,
    ) -> None:
        self._keys = [keys.workers, keys.worker(worker), keys.leases(model), keys.control(worker)]
        self._keys += [keys.isolated(model), keys.isolating(model), keys.cancelled, keys.withdrawn]
        self._worker = worker
        self._options = options
        self._clock = clock
        self._heartbeat = client.register_script(load_script("gpu_worker", "heartbeat"))

    async def renew(self, held: Iterable[HeldBatch], report: Mapping[str, str]) -> HeartbeatReply:
        """Report, and renew the leases of all batches in `held`. Call it only while the engine makes progress."""
        batches = list(held)
        flat_report = [part for pair in report.items() for part in pair]
        flat_leases = [part for batch in batches for part in (batch.batch_id, batch.token)]
        ttl_ms = int(1000 * self._options.heartbeat_s * REPORT_LIVES_FOR_HEARTBEATS)
        seconds, micros, control, isolate, lost_ids, cancelled = await self._heartbeat(
            keys=self._keys,
            args=[
                self._worker,
                ttl_ms,
                int(1000 * self._options.lease_s),
                RQ_JOB_PREFIX,
                len(report),
                *flat_report,
                *flat_leases,
            ],
        )
        self._clock.learn(int(seconds) + int(micros) / 1e6)
        lost = {batch_id.decode("utf-8", "replace") for batch_id in lost_ids}
        return HeartbeatReply(
            [batch for batch in batches if batch.batch_id in lost],
            drain=control == DRAIN.encode(),
            isolate=bool(isolate),
            cancelled=frozenset(run.decode("utf-8", "replace") for run in cancelled),
        )
