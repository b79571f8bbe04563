"""The one reader of Redis for everyone who looks at the page, and what it has seen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from batchfleet.gateway.page.history import History
from batchfleet.runs.eta import EtaEstimator, Sample
from batchfleet.status.model import FleetStatus, RunStatus
from batchfleet.status.read import read_status
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

EVERY_S = 2.0
"""From the end of one look at Redis to the beginning of the next, however many people look at the page."""


@dataclass
class Observer:
    """What was seen last, and for the last hour.

    Attributes:
        status: None before the first look, and while Redis does not answer.
        trouble: Why there is none, in words.
        looks: How many there were.
        history: The figures of all of them.
    """

    now: Callable[[], float] = time.monotonic
    status: FleetStatus | None = None
    trouble: str = "the first look at the fleet is under way"
    looks: int = 0
    history: History = field(default_factory=History)
    _estimators: dict[str, EtaEstimator] = field(default_factory=dict)

    def take_in(self, status: FleetStatus | None, trouble: str = "") -> None:
        """One look."""
        at_s = self.now()
        self.history.add(at_s, status)
        if status is not None:
            shown = {run.run: run for run in status.runs}
            self._estimators = {name: self._estimators.get(name) or EtaEstimator() for name in shown}
            for name, run in shown.items():
                self._estimators[name].observe(
                    Sample(at_s, run.answered + run.failed, 0),
                    left=open_questions(run),
                    in_flight=sum(queue.in_flight_questions for queue in status.queues if queue.model == run.model),
                    can_work=any(worker.model == run.model and worker.state == "running" for worker in status.workers),
                )
        self.status, self.trouble, self.looks = status, trouble, self.looks + 1

    def left_s(self, run: RunStatus) -> float | None:
        """Seconds until that run is complete; None if it is too early to tell, or nothing more comes."""
        estimator = self._estimators.get(run.run)
        return estimator.left_s(open_questions(run)) if estimator and run.state == "asking" else None


def open_questions(run: RunStatus) -> int:
    """Those of a run without a record, sent or not."""
    return max(0, max(run.questions, run.accepted) - run.answered - run.failed)


@contextlib.asynccontextmanager
async def observed(observer: Observer, address: RedisAddress) -> AsyncIterator[None]:
    """Keep `observer` current meanwhile, in a thread, so that a slow Redis holds up nobody."""
    watch = asyncio.create_task(_watch(observer, address), name="page observer")
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


async def _watch(observer: Observer, address: RedisAddress) -> None:
    with connect(address) as client:
        while True:
            try:
                with translated(address):
                    status, trouble = await asyncio.to_thread(read_status, client, Keys(address.namespace)), ""
            except FleetError as error:
                status, trouble = None, str(error)
            except Exception:
                # The page must not stay as it is for good because of one look.
                log.exception("the fleet could not be looked at")
                status, trouble = None, "a bug of the gateway; its log has more"
            observer.take_in(status, trouble)
            await asyncio.sleep(EVERY_S)
