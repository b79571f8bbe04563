"""The last hour, as far as this process has seen it: bounded, in memory, gone when it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from batchfleet.gateway.page.chart import Point
from batchfleet.status.figures import room_of
from batchfleet.status.model import FleetStatus

SPANS_S = (300.0, 900.0, 1800.0, 3600.0)
"""How far back a chart may go; nothing older than the last is kept."""
MOST_LOOKS = 1800
"""An hour of one look every two seconds."""
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """The fleet in six figures, and when; None for what was not known, all of them while Redis was away.

    `failed`: Questions that ended as failures, as the workers that report count them.
    """

    at_s: float
    answers_per_s: float | None = None
    tokens_per_s: float | None = None
    waiting: float | None = None
    engines_full: float | None = None
    batch_fill: float | None = None
    failed: float | None = None


class History:
    """Looks of the last hour."""

    def __init__(self) -> None:
        self.looks: deque[Look] = deque(maxlen=MOST_LOOKS)

    def add(self, at_s: float, status: FleetStatus | None) -> None:
        """Take in a look; None: Redis did not answer. `at_s`: on a monotonic clock."""
        while self.looks and self.looks[0].at_s < at_s - SPANS_S[-1]:
            self.looks.popleft()
        self.looks.append(Look(at_s) if status is None else look_at(at_s, status))

    def points(self, value: Callable[[Look], float | None]) -> list[Point]:
        return [Point(look.at_s, value(look)) for look in self.looks]

    def span_s(self, now_s: float) -> float:
        """How far back charts go: the shortest of `SPANS_S` that has room for all looks."""
        seen_s = now_s - self.looks[0].at_s if self.looks else 0.0
        return next((span_s for span_s in SPANS_S if span_s >= seen_s), SPANS_S[-1])

    def failures_per_min(self) -> list[Point]:
        """From one look to the next; a worker that is gone takes its count with it, which is no negative failure."""
        looks = [look for look in self.looks if look.failed is not None]
        return [
            Point(
                after.at_s, max(0.0, (after.failed or 0) - (before.failed or 0)) / (after.at_s - before.at_s) * MINUTE_S
            )
            for before, after in pairwise(looks)
            if after.at_s > before.at_s
        ]


def look_at(at_s: float, status: FleetStatus) -> Look:
    """A look at that state."""
    room = room_of(status.workers)
    in_flight = sum(worker.in_flight for worker in status.workers)
    # Of those that hand out batches now; an idle queue's last value would stand there for ever.
    fills = [(queue.batch_fill, queue.batches_lately) for queue in status.queues if queue.batch_fill is not None]
    batches = sum(number for _, number in fills)
    return Look(
        at_s,
        answers_per_s=sum(worker.answers_per_s for worker in status.workers),
        tokens_per_s=sum(worker.tokens_per_s for worker in status.workers),
        waiting=status.pending_questions,
        # A last batch is taken while there is room for one question: full is full.
        engines_full=min(1.0, in_flight / room) if room else None,
        batch_fill=sum(fill * number for fill, number in fills) / batches if batches else None,
        failed=sum(worker.failed for worker in status.workers),
    )
