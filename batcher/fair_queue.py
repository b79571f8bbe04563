"""The questions of one queue in the order in which they ride.

Runs take turns, a question each, and within a run the oldest goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from batcher.packing import Waiting


class FairQueue:
    """What was read of one queue and is not yet handed over.

    A run that comes late waits for one turn of each other run, not for their ends.

    Attributes:
        bytes: Of all questions in it.
    """

    def __init__(self) -> None:
        # In the order of their turns. A run that has nothing here has no turn, and comes back as the newest.
        self._runs: OrderedDict[bytes, deque[Waiting]] = OrderedDict()
        self._came: dict[bytes, int] = {}
        self._comings = 0
        self._count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self.front(self._count))

    def append(self, question: Waiting) -> None:
        """Put a question behind those of its run."""
        if question.run not in self._runs:
            self._runs[question.run] = deque()
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
        for run, waiting in self._runs.items():
            self._runs[run] = deque(question for question in waiting if question.entry_id not in entry_ids)
        self._count = sum(map(len, self._runs.values()))
        self.bytes = sum(len(question.data) for waiting in self._runs.values() for question in waiting)
        self._forget_runs(set(self._runs))

    def _forget_runs(self, runs: Collection[bytes]) -> None:
        for run in runs:
            if not self._runs[run]:
                del self._runs[run]
                del self._came[run]
