"""Which questions of a source are asked, where not all of them are."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Selection:
    """The first `limit` questions, or a random `sample` of them; all of them if neither is given.

    The same sample of the same number of questions comes out on every machine, and a larger one of the same seed
    contains it.
    """

    limit: int | None = None
    sample: int | None = None
    seed: int = 0

    def __str__(self) -> str:
        if self.sample is not None:
            return f"a sample of {self.sample}, seed {self.seed}"
        return "all" if self.limit is None else f"the first {self.limit}"

    def positions(self, entries: Iterable[object]) -> Collection[int] | None:
        """Positions of the chosen ones, from 0; None for all.

        Only a sample needs to go through the entries; memory: that of the result.
        """
        if self.sample is None:
            return None if self.limit is None else range(self.limit)
        # By hash, not by `random`, whose draws may change with Python: a run is resumed with the questions that it
        # began with.
        draws = (
            (blake2b(f"{self.seed}:{position}".encode(), digest_size=8).digest(), position)
            for position, _ in enumerate(entries)
        )
        return frozenset(position for _, position in heapq.nsmallest(self.sample, draws))


EVERYTHING = Selection()
