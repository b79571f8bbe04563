"""Which questions were at a server as it went away, and how few may be there with them the next time.

Any of them may have taken it down. Those that were are asked again in groups of a quarter of the size, and so on, until
the one that does it stands alone; the others are answered on the way.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gpu_worker.engines.openai.crash_ledger import CrashLedger
from wire.keys import withdrawn_member
from wire.messages import Question

SHRINKS_BY_BITS = 2
CRASHES_ALONE = 3
"""After so many with nothing else at the server, it is the question."""
MOST_REMEMBERED = 10_000
ALONE, TOGETHER = ":a", ":t"


@dataclass(frozen=True, slots=True)
class CrashCount:
    """How often the server went away while a question was there: with others, and alone."""

    together: int = 0
    alone: int = 0


@dataclass(frozen=True, slots=True)
class Company:
    """Requests that may be at the server with a question, itself included.

    `is_certain`: where nothing else of this worker's is there, nothing of another's is that is suspected too.
    """

    most_open: int
    is_certain: bool


class Crashes:
    """By question, also while it is back in the queue because the server stays away for long.

    Args:
        max_in_flight: Most requests at once.
        ledger: What other workers at the server have seen; None if there are none.
    """

    def __init__(self, max_in_flight: int, ledger: CrashLedger | None = None) -> None:
        self._max_in_flight = max_in_flight
        self._ledger = ledger
        self._counts: dict[str, CrashCount] = {}

    def most_open(self, question: Question) -> int:
        """Requests that may be open while this one is, itself included."""
        known = self._counts.get(_name(question), CrashCount())
        return max(1, self._max_in_flight >> SHRINKS_BY_BITS * known.together)

    @contextlib.asynccontextmanager
    async def company(self, question: Question) -> AsyncIterator[Company]:
        """How many may be with it; if nobody, it waits until no other worker has such a one at the server."""
        most_open = self.most_open(question)
        if most_open > 1 or self._ledger is None:
            yield Company(most_open, is_certain=self._ledger is None)
        else:
            async with self._ledger.turn() as is_certain:
                yield Company(most_open, is_certain)

    async def add(self, question: Question, company: Company, *, alone: bool) -> CrashCount:
        """The server went away while the question was there; returns how often it did, wherever it was asked.

        `alone`: nothing else of this worker's was there.
        """
        name, counts = _name(question), alone and company.is_certain
        # What seemed to be alone is so the next time, for certain.
        by = self._max_in_flight.bit_length() // SHRINKS_BY_BITS if alone and not counts else 1
        was = self._counts.get(name, CrashCount())
        now = CrashCount(was.together, was.alone + 1) if counts else CrashCount(was.together + by, was.alone)
        self._keep(name, now)
        if self._ledger is not None:
            shared = await self._ledger.add(name + (ALONE if counts else TOGETHER), by)
            now = CrashCount(now.together, max(now.alone, shared)) if counts else now
            now = now if counts else CrashCount(max(now.together, shared), now.alone)
            self._keep(name, now)
        return now

    async def refresh(self) -> None:
        """Hear what other workers have seen."""
        if self._ledger is None:
            return
        found = await self._ledger.read()
        for name in {field[: -len(ALONE)] for field in found}:
            was = self._counts.get(name, CrashCount())
            together, alone = found.get(name + TOGETHER, 0), found.get(name + ALONE, 0)
            self._keep(name, CrashCount(max(was.together, together), max(was.alone, alone)))

    async def forget(self, question: Question) -> None:
        """It has its record."""
        name = _name(question)
        if self._counts.pop(name, None) is not None and self._ledger is not None:
            await self._ledger.forget(name + ALONE, name + TOGETHER)

    def _keep(self, name: str, count: CrashCount) -> None:
        self._counts.pop(name, None)
        if len(self._counts) >= MOST_REMEMBERED:
            # The oldest; whoever it is will be met again.
            self._counts.pop(next(iter(self._counts)))
        self._counts[name] = count


def _name(question: Question) -> str:
    return withdrawn_member(question.run, question.epoch, question.index)
