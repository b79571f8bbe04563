"""How fast a run goes, and how long it will still take: the rate of the last minutes, carried on.

Pure: the clock is the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

SHORTEST_S, LONGEST_S = 20.0, 120.0
"""A rate is that of the later half of a run, if that is neither shorter nor longer, and of `LEAST_PAUSES`."""
LEAST_PAUSES = 4
PAUSE = 0.5
"""A silence of such a share of the longest one is a pause between two waves of answers."""
MOST_LOOKS = 512
LEAST_DONE, LEAST_SHARE = 10, 0.1
"""So many answers, or such a share of the questions, tell a rate; so do fewer in `SHORTEST_S`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a run: seconds on a monotonic clock; questions and tokens done by then, by this process."""

    at_s: float
    done: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Rate:
    """Questions and tokens per second, and the look up to which they were measured."""

    questions_per_s: float
    tokens_per_s: float
    until: Sample


class EtaEstimator:
    """Watches a run.

    Answers of like lengths come in waves, and so do those of a server that throttles. So a rate is measured from before
    one pause to before another, and the silence of now counts only as far as it is longer than all before it.
    """

    def __init__(self) -> None:
        # The beginning of what counts, and then each look at which something had come.
        self._looks: deque[Sample] = deque()
        self._now_s = self._began_s = 0.0
        self._in_flight = 0
        self._enough_at_s: float | None = None
        self.questions_per_s = 0.0
        self.tokens_per_s = 0.0

    def observe(self, look: Sample, left: int, in_flight: int, *, can_work: bool = True) -> None:
        """Take in how it stands.

        Args:
            left: Questions without a record.
            in_flight: Those of them in engines, as far as is known.
            can_work: Whether an engine is up; the time before one is does not count.
        """
        self._now_s = look.at_s
        self._in_flight = max(self._in_flight, min(in_flight, left))
        if not self._looks or not (look.done or can_work):
            self._looks, self._began_s = deque([look]), look.at_s
        if look.done != self._looks[-1].done:
            self._looks.append(look)
            if self._enough_at_s is None:
                # As long again as the first answer took: whatever began with it has come by then, unless it is longer.
                self._enough_at_s = 2 * look.at_s - self._began_s
        self._forget()
        if self._is_enough(look, look.done + left):
            rate = self._rate(self._looks)
            self.questions_per_s, self.tokens_per_s = rate.questions_per_s, rate.tokens_per_s

    def left_s(self, left: int) -> float | None:
        """Seconds until the last of `left` questions has its record; None if it is too early to tell."""
        if not self.questions_per_s or not left:
            return None
        looks: Sequence[Sample] = self._looks
        if left < self._in_flight:
            # The engines run empty, and answers come ever more slowly: what counts is how long the last ones took.
            few = looks[-1].done - 2 * left
            looks = list(
                islice(looks, max((number for number, look in enumerate(looks) if look.done <= few), default=0), None)
            )
        rate = self._rate(looks)
        # An unusual silence has lasted so long; whoever waits longer than ever before waits as long again.
        unusual_s = rate.until.at_s - looks[-1].at_s
        left_then = left + looks[-1].done - rate.until.done
        return max(
            1 / rate.questions_per_s, unusual_s, left_then / rate.questions_per_s - (self._now_s - rate.until.at_s)
        )

    def _forget(self) -> None:
        looks = self._looks
        since_s = self._now_s - min(max(SHORTEST_S, (self._now_s - self._began_s) / 2), LONGEST_S)
        pauses = self._before_pauses(looks)
        while len(pauses) > LEAST_PAUSES and looks[1].at_s <= since_s:
            pauses = pauses[looks.popleft() is pauses[0] :]
        if len(looks) > MOST_LOOKS:
            # Every second one, so that what is kept does not grow with the run; but always the last.
            self._looks = deque([*list(looks)[:-1:2], looks[-1]])

    def _is_enough(self, now: Sample, questions: int) -> bool:
        if self._enough_at_s is None or (now.at_s < self._enough_at_s and now.done < self._in_flight):
            return False
        return now.done >= min(LEAST_DONE, LEAST_SHARE * questions) or now.at_s - self._began_s >= SHORTEST_S

    def _before_pauses(self, looks: Sequence[Sample]) -> list[Sample]:
        until_s = [*(look.at_s for look in islice(looks, 1, None)), self._now_s]
        silences_s = [end_s - look.at_s for look, end_s in zip(looks, until_s, strict=True)]
        least_s = PAUSE * max(silences_s)
        return [look for look, silence_s in zip(looks, silences_s, strict=True) if silence_s >= least_s]

    def _rate(self, looks: Sequence[Sample]) -> Rate:
        longest_s = max(after.at_s - before.at_s for before, after in pairwise(looks))
        first, last = looks[0], Sample(max(looks[-1].at_s, self._now_s - longest_s), looks[-1].done, looks[-1].tokens)
        pauses = self._before_pauses(looks)
        if pauses and 2 * (pauses[-1].done - pauses[0].done) >= last.done - first.done:
            first, last = pauses[0], last if pauses[-1] is looks[-1] else pauses[-1]
        passed_s = last.at_s - first.at_s
        return Rate((last.done - first.done) / passed_s, (last.tokens - first.tokens) / passed_s, last)
