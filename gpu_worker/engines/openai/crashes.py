"""Which questions were at a server as it went away, and how few may be there with them the next time.

Any of them may have taken it down. Those that were are asked again in groups of a quarter of the size, and so on, until
the one that does it stands alone; the others are answered on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wire.messages import Question

SHRINKS_BY_BITS = 2
CRASHES_ALONE = 3
"""After so many with nothing else of this worker's at the server, it is the question."""
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class CrashCount:
    """How often the server went away while a question was there: with others, and alone."""

    together: int = 0
    alone: int = 0


class Crashes:
    """By question, also while it is back in the queue because the server stays away for long.

    Args:
        max_in_flight: Most requests at once.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._counts: dict[tuple[str, str, int], CrashCount] = {}

    def most_open(self, question: Question) -> int:
        """Requests that may be open while this one is, itself included."""
        known = self._counts.get(_key(question), CrashCount())
        return max(1, self._max_in_flight >> SHRINKS_BY_BITS * known.together)

    def add(self, question: Question, *, alone: bool) -> CrashCount:
        """The server went away while the question was there."""
        was = self._counts.pop(_key(question), CrashCount())
        now = replace(was, alone=was.alone + 1) if alone else replace(was, together=was.together + 1)
        if len(self._counts) >= MOST_REMEMBERED:
            # The oldest; whoever it is will be met again.
            self._counts.pop(next(iter(self._counts)))
        self._counts[_key(question)] = now
        return now

    def forget(self, question: Question) -> None:
        """It has its record."""
        self._counts.pop(_key(question), None)


def _key(question: Question) -> tuple[str, str, int]:
    return question.run, question.epoch, question.index
