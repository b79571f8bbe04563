"""How fast a run goes, and how long it will still take. Pure: the clock is the caller's."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import NamedTuple

from batchfleet.runs.answer_lengths import SAMPLE, clock_of, survival
from producer.resume import FinishedAnswer

LOOK_BACK_S = 300.0
"""A rate older than this says nothing of the workers of today."""
MOST_LOOKS = 512
LEAST_DONE = 20
LEAST_SHARE = 0.02
LAST = 0.56
"""The last of many has on average so many behind it: exp of minus Euler's constant, as for the largest of independent draws."""
STEPS = 20
GENERATIONS = 4
"""So many answers from each place in the engines, on average, before the beginning of a run no longer counts."""
FORESEE_EVERY_S = 0.5
SHORT_TAIL, LONG_TAIL = 0.4, 2.5
"""Times the likely one; what comes of them is the least and the most that is told. See tests/unit/batchfleet/test_eta.py."""
NOISE = 2.0
"""Of the square root of what is in flight: so many answers come late or early by chance."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a run: seconds on a monotonic clock; questions and tokens done by then, by this process."""

    at_s: float
    done: int
    tokens: int


class Left(NamedTuple):
    """Seconds until the last answer of a run. The three differ as long as nobody can know how long the longest answers are."""

    least: float
    likely: float
    most: float


class EtaEstimator:
    """Watches a run.

    In the first generations of answers the rate is that of engines which are full of answers as long as `foreseen_lengths` says. What has ended by
    then would mislead, because nothing ends before the shortest answer does, and then the short ones come first. Later the rate is that of the later
    half of what is done, at most of the last `LOOK_BACK_S` seconds, so that a fleet that grew is believed. While the engines run empty, and fewer and
    fewer answers end, it stays as it was.
    """

    def __init__(self) -> None:
        self._looks: deque[Sample] = deque()
        self._foreseen: Sample | None = None
        self._grew = Sample(0.0, 0, 0)
        self._lengths: Sequence[float] = ()
        self._shorter: Sequence[float] = ()
        self._longer: Sequence[float] = ()
        self._most_in_flight = 0
        self._now_s = 0.0
        self.questions_per_s = 0.0
        self.tokens_per_s = 0.0

    def observe(self, look: Sample, left: int, in_flight: int, ends: Sequence[FinishedAnswer] = ()) -> None:
        """Take in how it stands.

        Args:
            left: Questions without a record.
            in_flight: Those of them in engines, as far as is known.
            ends: The latest answers.
        """
        self._now_s = look.at_s
        if (
            self._looks
            and look.done == self._looks[-1].done
            and look.at_s - self._looks[-1].at_s < LOOK_BACK_S / MOST_LOOKS
        ):
            return
        self._looks.append(look)
        if len(self._looks) > MOST_LOOKS:
            # Every second one, so that what is kept does not grow with the run.
            self._looks = deque(list(self._looks)[::2])
        self._most_in_flight = max(self._most_in_flight, min(in_flight, left))
        running_empty = self.questions_per_s > 0 and left < self._most_in_flight
        if look.done != self._grew.done:
            self._grew = look
        # Answers of like lengths end in waves: between two of these the rate is that of the last one.
        between_waves = (
            self.questions_per_s > 0 and look.at_s - self._grew.at_s < self._most_in_flight / self.questions_per_s
        )
        # What was foreseen in the middle of a wave knows less than what there is to know when it is over.
        outdated = self._foreseen is not None and self._foreseen.done != look.done
        if (
            not running_empty
            and (look is self._grew or outdated or not between_waves)
            and not self._foresee(look, ends)
        ):
            self._foreseen = None
            self._look_back(look, ends)

    def _foresee(self, now: Sample, ends: Sequence[FinishedAnswer]) -> bool:
        """Go by what was begun; False if the beginning is long ago, or nothing is known of it."""
        full = self._most_in_flight
        if (
            not ends
            or len(ends) > GENERATIONS * full
            or now.at_s - self._looks[0].at_s > LOOK_BACK_S
            or now.done < len(ends)
        ):
            return False
        if self._foreseen is not None and (
            now.at_s - self._foreseen.at_s < FORESEE_EVERY_S or now.done == self._foreseen.done
        ):
            return True
        ends = list(ends)
        clock = clock_of(ends, full, self._looks[0].at_s)
        if clock is None:
            return False
        began_s, s_per_token = clock
        self._foreseen = now
        found = survival(ends, began_s, now.at_s, full, s_per_token)
        self._lengths, self._shorter, self._longer = (
            found.lengths(),
            found.lengths(SHORT_TAIL),
            found.lengths(LONG_TAIL),
        )
        self.tokens_per_s = full / s_per_token
        # Failures are done as well, and cost next to nothing.
        self.questions_per_s = self.tokens_per_s / fmean(self._lengths) * now.done / len(ends)
        return True

    def _look_back(self, now: Sample, ends: Sequence[FinishedAnswer]) -> None:
        self._lengths = self._shorter = self._longer = [end.tokens for end in islice(reversed(ends), SAMPLE)]
        half = [look for look in self._looks if look.done >= now.done / 2 or now.at_s - look.at_s <= 1]
        recent = [look for look in half if now.at_s - look.at_s <= LOOK_BACK_S]
        began = (recent or half)[0]
        passed_s = now.at_s - began.at_s
        if passed_s > 0:
            self.questions_per_s = (now.done - began.done) / passed_s
            self.tokens_per_s = (now.tokens - began.tokens) / passed_s

    def left_s(self, questions: int, left: int) -> Left | None:
        """How long it will still take; None if it is too early to tell.

        Args:
            questions: Of the run in all.
            left: Of these without a record.
        """
        done, full = self._looks[-1].done if self._looks else 0, self._most_in_flight
        enough = done >= LEAST_DONE and done >= LEAST_SHARE * questions and done >= full
        if not self.questions_per_s or not (enough or 10 * done >= questions):
            return None
        return Left(*(self._left_s(left, lengths) for lengths in (self._shorter, self._lengths, self._longer)))

    def _left_s(self, left: int, lengths: Sequence[float]) -> float:
        """If answers were as long as that."""
        full = self._most_in_flight
        if not full or not any(lengths):
            return left / self.questions_per_s
        # With `full` questions at once in the engines, one takes full / rate seconds (Little's law).
        s_per_token = full / self.questions_per_s / fmean(self._lengths)
        waiting_s = max(0, left - full) / full * fmean(lengths) * s_per_token - self._late() / self.questions_per_s
        last_s = s_per_token * (residual(lengths, LAST / full) - residual(lengths, min(1.0, left / full)))
        return max(0.0, waiting_s + last_s)

    def _late(self) -> float:
        """Answers that should have come by the rate, from any moment of the time that one takes: in the middle of a wave they are half made."""
        full, rate, done = self._most_in_flight, self.questions_per_s, self._looks[-1].done
        since = [look for look in self._looks if look.done and look.at_s >= self._now_s - full / rate]
        late = max((look.done + rate * (self._now_s - look.at_s) - done for look in since), default=0.0)
        return min(max(0.0, late - NOISE * math.sqrt(full)), full)


def residual(lengths: Sequence[float], share: float) -> float:
    """The tokens that a share (0 to 1) of the answers in a busy engine still have to come, or more.

    An answer of length L is met in the engine L times as often as one of length 1, at any of its tokens alike. So the share with more than x to
    come is the mean of max(0, L - x) over the mean of L.
    """
    want, low, high = share * sum(lengths), 0.0, float(max(lengths))
    for _ in range(STEPS):
        middle = (low + high) / 2
        if sum(length - middle for length in lengths if length > middle) > want:
            low = middle
        else:
            high = middle
    return high
