"""How long to wait before the next try: the one back-off of all programs."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_S = 0.1
LONGEST_S = 2.0
"""Redis is asked again at least this often: it is usually back within seconds, and a fleet should notice."""
MOST_DOUBLINGS = 30


def pause_s(failures: int, *, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> float:
    """The pause after so many failures in a row (1 or more), in seconds.

    It doubles with each failure from `first_s` up to `longest_s`; of that, between half and all at random, so that a
    fleet whose Redis returns does not ask it all at once.
    """
    ceiling = min(longest_s, first_s * 2 ** min(failures - 1, MOST_DOUBLINGS))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 (spreads load, keeps no secret)


@dataclass(slots=True)
class Backoff:
    """Counts failures in a row and gives the pause after each.

    It never gives up: how long to try is the caller's to decide.

    Attributes:
        first_s, longest_s: As `pause_s` takes them.
        failures: In a row, so far.
    """

    first_s: float = FIRST_S
    longest_s: float = LONGEST_S
    failures: int = 0

    def next_s(self) -> float:
        """Count a failure; returns for how many seconds to wait before the next try."""
        self.failures += 1
        return pause_s(self.failures, first_s=self.first_s, longest_s=self.longest_s)

    def reset(self) -> None:
        """After a success: the next pause is short again."""
        self.failures = 0
