"""The questions of one queue in the order in which they ride.

Runs take turns, a question each. Within a run the oldest goes first, and brings along those that begin like it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from batcher.packing import Waiting
from batcher.prefixes import together

MOST_TOGETHER = 8192
"""Questions of a run that are put in order at once: no question is overtaken by as many."""


class RunQueue:
    """The questions of one run.

    Those whose beginnings matter, and what came after them, are put in order as late as may be, when they are asked
    for. The others stand in order as they come.
    """

    def __init__(self) -> None:
        self._ordered: deque[Waiting] = deque()
        self._gathering: deque[Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._ordered or self._gathering)

    def __iter__(self) -> Iterator[Waiting]:
        seen = 0
        while seen < len(self._ordered) or self._order_more():
            yield from islice(self._ordered, seen, None)
            seen = len(self._ordered)

    @property
    def gathering(self) -> Sequence[Waiting]:
        """Those that are not in order yet, as they came."""
        return self._gathering

    def append(self, question: Waiting) -> None:
        (self._gathering if self._gathering or question.prefix else self._ordered).append(question)

    def popleft(self) -> Waiting:
        """The first, as iterating gave it."""
        return self._ordered.popleft()

    def forget(self, entry_ids: Collection[bytes]) -> list[Waiting]:
        """Take out questions of these ids, wherever they stand; returns those that were there."""
        gone = list[Waiting]()
        for part in (self._ordered, self._gathering):
            for _ in range(len(part)):
                question = part.popleft()
                (gone if question.entry_id in entry_ids else part).append(question)
        return gone

    def _order_more(self) -> bool:
        some = [self._gathering.popleft() for _ in range(min(MOST_TOGETHER, len(self._gathering)))]
        self._ordered.extend(together(some))
        return bool(some)


class FairQueue:
    """What was read of one queue and is not yet handed over.

    A run that comes late waits for one turn of each other run, not for their ends.

    Attributes:
        bytes: Of all questions in it.
    """

    def __init__(self) -> None:
        # In the order of their turns. A run that has nothing here has no turn, and comes back as the newest.
        self._runs: OrderedDict[bytes, RunQueue] = OrderedDict()
        self._came: dict[bytes, int] = {}
        self._comings = 0
        self._count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.front(self._count))

    def gathers_since(self, most: int) -> float | None:
        """Since when the oldest waits that others that begin alike may still join; None if there is none.

        Nor if enough questions are in order already for the next `most`.
        """
        gathering = [run.gathering for run in self._runs.values() if run.gathering]
        if self._count - sum(map(len, gathering)) >= most:
            return None
        return min((questions[0].since for questions in gathering), default=None)

    def append(self, question: Waiting) -> None:
        """Put a question behind those of its run."""
        if question.run not in self._runs:
            self._runs[question.run] = RunQueue()
            self._comings += 1
            self._came[question.run] = self._comings
        self._runs[question.run].append(question)
        self._count += 1
        self.bytes += len(question.data)

    def front(self, most: int) -> list[Waiting]:
        """The next questions, at most so many; they stay where they are."""
        if len(self._runs) == 1:
            (only,) = self._runs.values()
            return list(islice(only, most))
        chosen: list[Waiting] = []
        turns = [iter(run) for run in islice(self._runs.values(), most)]
        while turns and len(chosen) < most:
            row = [(turn, question) for turn in turns if (question := next(turn, None)) is not None]
            chosen += [question for _, question in row]
            turns = [turn for turn, _ in row]
        return chosen[:most]

    def newest(self, batch: Iterable[Waiting]) -> bytes:
        """Of the runs in a batch, the one that came last."""
        return max((question.run for question in batch), key=lambda run: self._came.get(run, 0))

    def drop(self, questions: Sequence[Waiting]) -> None:
        """Take out the first questions, as `front` gave them: they are handed over.

        The next turn is that of the run after the last of them.
        """
        for question in questions:
            self._runs[question.run].popleft()
            self.bytes -= len(question.data)
        self._count -= len(questions)
        while questions and next(reversed(self._runs)) != questions[-1].run:
            self._runs.move_to_end(next(iter(self._runs)))
        self._forget_runs({question.run for question in questions})

    def forget(self, entry_ids: Collection[bytes]) -> None:
        """Take out questions that are not in the stream any more, wherever they stand."""
        gone = [question for run in self._runs.values() for question in run.forget(entry_ids)]
        self._count -= len(gone)
        self.bytes -= sum(len(question.data) for question in gone)
        self._forget_runs(set(self._runs))

    def _forget_runs(self, runs: Collection[bytes]) -> None:
        for run in runs:
            if not self._runs[run]:
                del self._runs[run]
                del self._came[run]
