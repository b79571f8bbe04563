"""Counts of values by size.

Cheap to add to on the path of a question; whoever shows it reads the counts as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts by size.

    Attributes:
        bounds: Upper ends of the buckets, each included, ascending; a last bucket takes what is above.
        counts: Of each bucket by itself, so one more than there are bounds.
        total: Sum of the values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.counts)


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
"""Bounds for waits and generations: a stub's milliseconds to a long answer's half hour."""
QUESTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Bounds for sizes of batches."""
