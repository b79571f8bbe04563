"""`up`: a long-running fleet on this host until it is told to go, and changes its size on the way.

What a dead child means is for `local_fleet` to say, and how it is restarted for `processes`.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.status.workers import WorkerSnapshot, see_workers
from batchfleet.supervisor.autoscaler import Autoscaler
from batchfleet.supervisor.dead_workers import DeadWorkers
from batchfleet.supervisor.host_control import STOP, HostReporter, Request
from batchfleet.supervisor.local_fleet import LocalFleet
from batchfleet.supervisor.local_plan import LocalPlan
from batchfleet.supervisor.scale_rule import WorkerRange
from batchfleet.supervisor.state_folder import held
from gpu_worker.gpus.slices import SliceOptions
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError, QueueUnavailableError, UsageError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

SUPERVISE_EVERY_S = 0.2
ENGINE_STOP_S = 20.0
"""How long an engine may take to end, after the questions in it."""


@dataclass(frozen=True, slots=True)
class UpPlan:
    """What is to be up.

    Attributes:
        engine: `stub`, `vllm` or `openai`; None for what each worker finds in the configuration.
        workers: How many, or between how many.
        batchers: How many.
        folder: For the state; see `supervisor.state_folder`.
        log_level, log_format: Of all processes.
        redis_patience_s: Longest that Redis may be away before the fleet ends; None for ever.
        leaves_idle: Whether it begins with as many workers as it may have, and ends when none is worth having.
    """

    engine: str | None
    workers: WorkerRange
    batchers: int
    folder: Path
    log_level: str
    log_format: str = "text"
    redis_patience_s: float | None = None
    leaves_idle: bool = False

    @property
    def first_workers(self) -> int:
        return self.workers.most if self.leaves_idle else self.workers.least


def grace_s(settings: Settings) -> float:
    """How long a worker may take to go: to finish what it holds, and to end its engine."""
    return settings.leases.drain_s + ENGINE_STOP_S


def stay_up(what: UpPlan, settings: Settings) -> int:
    """Keep the fleet up until SIGTERM, SIGINT, or `batchfleet down`.

    A second signal gives back at once what workers hold.

    Returns:
        0: it was told to stop, and everything has ended in order.

    Raises:
        ChildGaveUpError: It cannot work; with the last words of what cannot.
        QueueUnavailableError: Redis was away for longer than the plan allows.
        UsageError: The state folder cannot be used, or a fleet is up with it.
    """
    with held(what.folder, for_socket=settings.redis.url is None) as folder:
        plan = replace(
            LocalPlan.of(settings, os.environ, engine=what.engine, workers=what.first_workers),
            batchers=what.batchers,
            log_level=what.log_level,
            log_format=what.log_format,
            folder=folder,
            grace_s=grace_s(settings),
        )
        stopping = threading.Event()
        scaler = _autoscaler(what, settings)
        with LocalFleet(plan) as fleet:
            _stop_on_signals(stopping, fleet)
            address = to_options.redis_address(settings, url=fleet.redis_url)
            log.info(
                "up with Redis at %s; logs are in %s; `batchfleet scale` changes the number of workers, Ctrl-C stops",
                address.shown(),
                folder,
            )
            _Keeper(fleet, address, settings.leases.heartbeat_s, stopping, scaler, what).keep()
    log.info("stopped")
    return 0


def _autoscaler(what: UpPlan, settings: Settings) -> Autoscaler:
    try:
        kind = to_options.engine_kind(settings, what.engine)
        model = to_options.model_name(settings, kind)
    except UsageError:
        if what.workers.most:
            raise
        # None are to be started; with other settings in their environment, others may be one day.
        kind = model = ""
    slices = SliceOptions.of(kind, settings.model.generator_settings.vllm_args, os.environ) if model else SliceOptions()
    scaler = Autoscaler(
        model,
        batch_size=to_options.most_in_a_batch(settings),
        capacity=settings.capacity or 0,
        idle_s=settings.processing.scale_down_s,
        # With fewer GPUs than one needs, it is for the worker to say so.
        room=max(1, len(slices.gpus.uuids) // slices.count) if slices.count and slices.gpus.uuids else None,
    )
    scaler.set_range(what.workers, what.first_workers)
    return scaler


class _Keeper:
    """Looks after the fleet, reports, and does what it is asked for."""

    def __init__(
        self,
        fleet: LocalFleet,
        address: RedisAddress,
        heartbeat_s: float,
        stopping: threading.Event,
        scaler: Autoscaler,
        what: UpPlan,
    ) -> None:
        self._leaves_idle, self._redis_patience_s = what.leaves_idle, what.redis_patience_s
        self._redis_seen, self._not_reported = time.monotonic(), ""
        self._has_served = False
        self._fleet = fleet
        self._scaler = scaler
        self._address = address
        self._heartbeat_s = heartbeat_s
        self._stopping = stopping
        self._keys = Keys(address.namespace)
        self._said = ""
        self._next_report = 0.0

    def keep(self) -> None:
        """Until told to stop; then until the last worker has gone."""
        with connect(self._address) as client:
            post = HostReporter(client, self._keys, self._heartbeat_s)
            dead_workers = DeadWorkers(client, self._keys)
            while not self._stopping.wait(SUPERVISE_EVERY_S):
                self._look(client, post, dead_workers)
                if self._leaves_idle and not (self._fleet.workers or self._fleet.leaving):
                    self._stopping.set()
            log.info("stopping: workers finish what they hold; a second signal stops at once")
            self._fleet.scale(0, {})
            while self._fleet.leaving:
                time.sleep(SUPERVISE_EVERY_S)
                self._look(client, post, dead_workers)
            try:
                with translated(self._address):
                    post.leave()
            except FleetError as error:
                log.info("deregistration failed: %s", error)

    def _look(self, client: redis.Redis, post: HostReporter, dead_workers: DeadWorkers) -> None:
        self._fleet.check()
        if time.monotonic() < self._next_report:
            return
        self._next_report = time.monotonic() + self._heartbeat_s
        try:
            with translated(self._address):
                living = self._fleet.pids
                seen = [
                    worker
                    for worker in see_workers(client, self._keys, post.name.rpartition("-")[0])
                    if worker.pid in living
                ]
                dead_workers.look(seen, living)
                self._say(seen)
                if not self._stopping.is_set():
                    self._scale(client, post.name, seen)
                request = post.report(self._report())
                if request is not None and not self._stopping.is_set():
                    self._do(request, seen)
                    # At once: somebody waits for it.
                    post.report(self._report())
            self._redis_seen, self._not_reported = time.monotonic(), ""
        except QueueUnavailableError as error:
            # Tried every second, and said once.
            if str(error) != self._not_reported:
                self._not_reported = str(error)
                log.warning("not reported: %s", error)
            if self._redis_patience_s is not None and time.monotonic() - self._redis_seen > self._redis_patience_s:
                # Whoever lent the GPUs can use them meanwhile.
                raise

    def _do(self, request: Request, seen: list[WorkerSnapshot]) -> None:
        if request.what == STOP:
            log.info("asked to stop")
            self._stopping.set()
            return
        log.info("asked for %s workers", request.workers)
        self._fleet.lost = 0
        self._scaler.set_range(request.workers, self._fleet.workers)
        self._fleet.scale(self._scaler.wanted, {worker.pid: worker for worker in seen})

    def _scale(self, client: redis.Redis, host: str, seen: list[WorkerSnapshot]) -> None:
        """Have as many workers as the backlog is worth; none goes for it that holds work."""
        if self._leaves_idle and not self._has_served:
            # How much a worker does is not known yet, and this one was asked for by somebody who knew.
            self._scaler.observe(self._fleet.pids, seen, time.monotonic())
            return
        self._scaler.look(client, self._keys, host, self._fleet.lost, time.monotonic())
        self._fleet.scale(self._scaler.wanted, {worker.pid: worker for worker in seen}, only_idle=True)
        # Last, so that the boots of those just started are measured from here.
        self._scaler.observe(self._fleet.pids, seen, time.monotonic())

    def _report(self) -> dict[str, str | int]:
        limits = self._scaler.range
        return {
            "workers": self._fleet.workers,
            "leaving": self._fleet.leaving,
            "model": self._scaler.model if limits.most else "",
            "least": limits.least,
            "most": limits.most,
            "wanted": self._scaler.wanted,
        }

    def _say(self, seen: list[WorkerSnapshot]) -> None:
        """Tell, when it changes, how many workers do what."""
        states = sorted(worker.state for worker in seen)
        if "running" in states or "waiting" in states:
            self._fleet.has_served()
            self._has_served = True
        # Not how long it will last, which changes every second.
        reasons = {
            worker.state: f" ({worker.waits_for.partition('; asked again in ')[0]})"
            for worker in seen
            if worker.waits_for
        }
        counts = ", ".join(f"{states.count(state)} {state}{reasons.get(state, '')}" for state in dict.fromkeys(states))
        said = f"workers: {counts or 'none yet'}"
        if said != self._said:
            log.info("%s", said)
            self._said = said


def _stop_on_signals(stopping: threading.Event, fleet: LocalFleet) -> None:
    def stop(_number: int, _frame: object) -> None:
        if stopping.is_set():
            fleet.send_sigterm()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # A terminal that was closed; `nohup` has it ignored, and so it stays.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
