"""What a batcher has handed over, in total and recently."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from batcher.options import BatchLimits
from batcher.packing import Waiting, is_full
from wire.histogram import QUESTIONS, SECONDS, Histogram

LATELY_S = 30.0


@dataclass(frozen=True, slots=True)
class Sums:
    """Batches handed over, the questions in them, and how many of the batches were full.

    The others went because it was time.
    """

    batches: int = 0
    questions: int = 0
    full: int = 0

    def __sub__(self, before: Sums) -> Sums:
        return Sums(self.batches - before.batches, self.questions - before.questions, self.full - before.full)

    def as_dict(self) -> dict[str, int]:
        return {"batches": self.batches, "questions": self.questions, "full": self.full}


@dataclass(slots=True)
class Handed:
    """Of one model.

    Attributes:
        sizes: Questions in each batch.
        wait_s: How long the first question of each batch waited for company, in seconds.
    """

    sums: Sums = Sums()
    sizes: Histogram = field(default_factory=lambda: Histogram(QUESTIONS))
    wait_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    _looks: deque[tuple[float, Sums]] = field(default_factory=lambda: deque([(float("-inf"), Sums())]))

    def lately(self, now: float) -> Sums:
        """Since the last look that is `LATELY_S` seconds old; call it every heartbeat."""
        self._looks.append((now, self.sums))
        while len(self._looks) > 1 and now - self._looks[1][0] >= LATELY_S:
            self._looks.popleft()
        return self.sums - self._looks[0][1]


class HandoverStats:
    """Kept by one batcher, and read by whoever asks.

    It has an entry for each model that it ever handed something over for.
    """

    def __init__(self, limits: BatchLimits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now = now
        self.models: dict[str, Handed] = {}
        self.taken_back = 0

    def add(self, model: str, batches: Sequence[Sequence[Waiting]]) -> None:
        handed = self.models.setdefault(model, Handed())
        now = self._now()
        for batch in batches:
            sums = handed.sums
            handed.sums = Sums(sums.batches + 1, sums.questions + len(batch), sums.full + is_full(batch, self._limits))
            handed.sizes.observe(len(batch))
            handed.wait_s.observe(max(0.0, now - batch[0].since))

    def as_dict(self) -> dict[str, object]:
        """For the batcher's report: sums over all models, and for each model all that went and what went lately."""
        now = self._now()
        every = [handed.sums for handed in self.models.values()]
        batches, full = sum(sums.batches for sums in every), sum(sums.full for sums in every)
        return {
            "batches": batches,
            "questions": sum(sums.questions for sums in every),
            "by_reason": {"full": full, "time": batches - full},
            "models": {
                model: {**handed.sums.as_dict(), "lately": handed.lately(now).as_dict()}
                for model, handed in self.models.items()
            },
        }
