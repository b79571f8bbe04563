"""Which questions were at a server as it went away, and how few may be there with them the next time.

Any of them may have taken it down. Those that were are asked again in groups of a quarter of the size, and so on, until
the one that does it stands alone; the others are answered on the way.

Alone means: at no worker is anything else at the server. Who was lost when its turn came is asked once more in quiet,
so that a crash by what another worker asks counts at most once or twice; and convicted only after others were answered,
so that a server that goes away whatever it is asked convicts nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from gpu_worker.engines.openai.crash_ledger import CrashLedger, Seen
from wire.keys import withdrawn_member
from wire.messages import Question

SHRINKS_BY_BITS = 2
CRASHES_ALONE = 3
"""After so many with nothing else at the server, it is the question."""
MOST_REMEMBERED = 10_000
PROOF_S = 30.0
"""For so long without news, an answer to another question is waited for."""
LONGEST_PROOF_S = 600.0
LOOK_S = 0.25
FEWEST_ACCUSED, MOST_ACCUSED = 3, 8
"""So many questions that alone took the server down often enough, and not one answer since: it is the server. The fewer
will do if it went away with no others."""
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
        most_alone: After so many crashes alone, it is the question.
        settle_s: After so long, all workers have heard of what is in the ledger.
    """

    def __init__(
        self,
        max_in_flight: int,
        ledger: CrashLedger | None = None,
        *,
        most_alone: int = CRASHES_ALONE,
        settle_s: float = 4.0,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._ledger = ledger
        self._most_alone = most_alone
        self._settle_s = settle_s
        self._counts: dict[str, CrashCount] = {}
        self._seen = Seen()
        self._answers_told = self._answers = 0
        self._answers_before: dict[str, int] = {}
        """Of those that may be convicted: `_answers` when they were last given the benefit of the doubt."""

    @property
    def is_quiet(self) -> bool:
        """Whether another worker asks a question alone that must be so."""
        return self._seen.is_quiet

    def known(self, question: Question) -> CrashCount:
        """What was counted."""
        return self._counts.get(_name(question), CrashCount())

    def most_open(self, question: Question) -> int:
        """Requests that may be open while this one is, itself included."""
        return max(1, self._max_in_flight >> SHRINKS_BY_BITS * self.known(question).together)

    def may_convict(self, question: Question) -> bool:
        """Whether it has been alone with the server often enough when that went away."""
        return self.known(question).alone >= self._most_alone

    @contextlib.asynccontextmanager
    async def company(self, question: Question) -> AsyncIterator[Company]:
        """How many may be with it; if nobody, it waits until no other worker has such a one at the server."""
        most_open, quiet = self.most_open(question), self.known(question).alone > 0
        if most_open > 1 or self._ledger is None:
            yield Company(most_open, is_certain=self._ledger is None)
        else:
            async with self._ledger.turn(quiet=quiet) as is_certain:
                if quiet and is_certain:
                    await asyncio.sleep(self._settle_s)
                yield Company(most_open, is_certain)

    async def add(
        self, question: Question, company: Company, *, alone: bool, others_answered: bool = False
    ) -> CrashCount:
        """The server went away while the question was there; returns how often it did, wherever it was asked.

        Args:
            alone: Nothing else of this worker's was there.
            others_answered: What else was there has been answered.
        """
        name, counts = _name(question), alone and company.is_certain
        # What seemed to be alone is so the next time, for certain.
        by = self._max_in_flight.bit_length() // SHRINKS_BY_BITS if (alone or others_answered) and not counts else 1
        was = self.known(question)
        now = CrashCount(was.together, was.alone + 1) if counts else CrashCount(was.together + by, was.alone)
        self._keep(name, now)
        if self._ledger is not None:
            shared = await self._ledger.add(name + (ALONE if counts else TOGETHER), by)
            now = CrashCount(now.together, max(now.alone, shared)) if counts else now
            now = now if counts else CrashCount(max(now.together, shared), now.alone)
            self._keep(name, now)
        if now.alone < self._most_alone:
            self._answers_before[name] = self._answers
        return now

    async def refresh(self, answers: int) -> None:
        """Hear what other workers have seen, and say whether there were answers here.

        `answers`: How many there have been in all.
        """
        is_news, self._answers_told = answers > self._answers_told, answers
        if self._ledger is None:
            self._answers = answers
            return
        self._seen = seen = await self._ledger.read() or replace(self._seen, is_quiet=False)
        self._answers = max(self._answers, seen.answers)
        if is_news and any(field.endswith(ALONE) for field in seen.counts):
            await self._ledger.note_answers()
            self._answers += 1
        for name in {field[: -len(ALONE)] for field in seen.counts}:
            was = self._counts.get(name, CrashCount())
            together, alone = seen.counts.get(name + TOGETHER, 0), seen.counts.get(name + ALONE, 0)
            self._keep(name, CrashCount(max(was.together, together), max(was.alone, alone)))

    async def convicts(
        self, question: Question, may_be_answered: Callable[[], bool], has_company: Callable[[], bool]
    ) -> bool:
        """Whether it is this question that takes the server down; if not, the server goes away whatever it is asked.

        Waits until another is answered, but not for ever.

        Args:
            may_be_answered: Whether the server takes questions; raises if it never will.
            has_company: Whether there are other questions at this worker.
        """
        before = self._answers_before.setdefault(_name(question), self._answers)
        if self._ledger is not None:
            await self._ledger.end_quiet()
        began = changed_at = time.monotonic()
        last: list[CrashCount] = []
        was_there = False
        while self._answers <= before:
            counts, now = self._all_counts(), time.monotonic()
            accused = sum(count.alone >= self._most_alone for count in counts)
            is_there = self._ledger is None or _name(question) + ALONE in self._seen.counts
            if accused >= MOST_ACCUSED or accused == len(counts) >= FEWEST_ACCUSED or (was_there and not is_there):
                # Or another worker has found so.
                return False
            was_there = is_there
            if counts != last or not may_be_answered():
                last, changed_at = counts, now
            patience_s = PROOF_S if len(counts) > 1 or has_company() else self._settle_s
            if now - changed_at > patience_s or now - began > LONGEST_PROOF_S:
                break
            await asyncio.sleep(min(LOOK_S, self._settle_s))
        return True

    async def forget_all(self) -> None:
        """It was the server."""
        self._counts.clear()
        if self._ledger is not None:
            await self._ledger.forget()

    async def forget(self, question: Question) -> None:
        """It has its record."""
        name = _name(question)
        self._answers_before.pop(name, None)
        count = self._counts.pop(name, None)
        if count is not None and self._ledger is not None:
            await self._ledger.forget(name + ALONE, name + TOGETHER)
            if count.alone:
                await self._ledger.end_quiet()

    def _all_counts(self) -> list[CrashCount]:
        """Of all that have no record yet, at any worker."""
        if self._ledger is None:
            return list(self._counts.values())
        counts = self._seen.counts
        names = sorted({field[: -len(ALONE)] for field in counts})
        return [CrashCount(counts.get(name + TOGETHER, 0), counts.get(name + ALONE, 0)) for name in names]

    def _keep(self, name: str, count: CrashCount) -> None:
        self._counts.pop(name, None)
        if len(self._counts) >= MOST_REMEMBERED:
            # The oldest; whoever it is will be met again.
            self._counts.pop(next(iter(self._counts)))
        self._counts[name] = count


def _name(question: Question) -> str:
    return withdrawn_member(question.run, question.epoch, question.index)
