"""How long answers will be, while many of the first are still being written. Pure.

The first answers to end are the short ones, so their mean says too little. What has not ended yet counts as well: it is longer than it has run.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from statistics import median

from producer.resume import FinishedAnswer

SAMPLE = 200
_MOST_FOR_SLOPE = 48
_LEAST = 1e-9
OUTLIVING, PLAINLY_LONGER = 0.1, 1.5
"""If so many have been at it for so many times the most that was heard of, others were asked for more."""


def clock_of(ends: Sequence[FinishedAnswer], slots: int, seen_at_s: float) -> tuple[float, float] | None:
    """(when the engines began, seconds for a token); None if nothing tells.

    Of answers that began together, each ends so much later as it is longer: the slope of Theil and Sen, which does not mind some that began later.

    Args:
        ends: In the order in which they came.
        slots: How many answers are written at once.
        seen_at_s: When the engines were seen at work first, for answers that are all as long.
    """
    first = [end for end in ends[: max(2, slots // 2)] if end.tokens]
    first = first[:: 1 + len(first) // _MOST_FOR_SLOPE]
    slopes = [(b.at_s - a.at_s) / (b.tokens - a.tokens) for a, b in combinations(first, 2) if a.tokens != b.tokens]
    if not slopes:
        return (
            (seen_at_s, (first[0].at_s - seen_at_s) / first[0].tokens) if first and first[0].at_s > seen_at_s else None
        )
    s_per_token = median(slopes)
    return (median(end.at_s - s_per_token * end.tokens for end in first), s_per_token) if s_per_token > 0 else None


@dataclass(frozen=True, slots=True)
class Survival:
    """Which share of all answers is how long, as far as can be told.

    Attributes:
        steps: (share that is at most so long, length), rising.
        most: No answer is longer; infinite if that is not known.
    """

    steps: Sequence[tuple[float, float]]
    most: float = math.inf

    def lengths(self, tail: float = 1.0) -> list[float]:
        """Lengths that stand for all answers to come: quantiles of their distribution, each as likely as any other.

        Args:
            tail: What is beyond the longest that ended is a guess, and this many times as much is assumed.
        """
        shares = [share for share, _ in self.steps]
        last_share, longest = self.steps[-1]
        beyond = tail * _mean_beyond(self.steps)
        found = []
        for number in range(SAMPLE):
            share = (number + 0.5) / SAMPLE
            place = bisect_left(shares, share)
            length = (
                self.steps[place][1]
                if place < len(self.steps)
                else longest - beyond * math.log((1 - share) / (1 - last_share))
            )
            found.append(min(length, self.most))
        return found


def survival(ends: Sequence[FinishedAnswer], began_s: float, now_s: float, slots: int, s_per_token: float) -> Survival:
    """The estimate of Kaplan and Meier (1958) from all that began, ended or not: `slots` of them at the beginning, and one with each end.

    What is beyond the longest that ended is taken for exponential.

    Args:
        ends: All since the beginning, at least one.
    """
    # They did not all begin at one moment, and whatever ended had had the time for it: half of what the one that lacks most lacks, for all of them.
    slack = max(0.0, *(end.tokens - (end.at_s - began_s) / s_per_token for end in ends)) / 2
    ended = sorted(end.tokens for end in ends)
    oldest = max((now_s - began_s) / s_per_token + slack, float(ended[-1]))
    had = sorted([oldest] * slots + [(now_s - end.at_s) / s_per_token + slack for end in ends])
    gone = sorted((now_s - end.at_s) / s_per_token + end.tokens for end in ends)
    steps: list[tuple[float, float]] = []
    alive, before = 1.0, 0
    for length, group in groupby(ended):
        count = len(list(group))
        # Of those that have had the time for it, all that had not ended before.
        at_risk = len(had) - bisect_left(had, length) - (before - min(before, bisect_left(gone, length)))
        alive *= 1 - count / max(count, at_risk)
        before += count
        steps.append((1 - alive, float(length)))
    most = _most(ends)
    return Survival(steps, most if alive < OUTLIVING or had[-1] < PLAINLY_LONGER * most else math.inf)


def _most(ends: Sequence[FinishedAnswer]) -> float:
    """More tokens than this no answer has, if all were asked alike; infinite if that is not known."""
    return max(max(end.most, end.tokens) for end in ends) if all(end.most for end in ends) else math.inf


def _mean_beyond(steps: Sequence[tuple[float, float]]) -> float:
    """How much longer than the longest of them those are, on average, that are longer still.

    Nobody knows. It is taken to be between what it is if answers end ever sooner or later, as they do from all of that length to its last third, and
    what is usual where the longest of many answers are a few times the mean, and nearer to that.
    """
    last_share, longest = steps[-1]
    if longest <= 0:
        return 0.0
    alive = max(_LEAST, 1 - last_share)
    # Of answers that came late, as after an outage, all may seem to have ended by any length.
    before = max(alive, next((1 - share for share, length in reversed(steps) if length <= longest * 2 / 3), 1.0))
    of_all, of_late = longest / max(_LEAST, -math.log(alive)), longest / 3 / max(_LEAST, math.log(before / alive))
    going_on, usual = of_late * math.sqrt(of_late / of_all), alive * longest
    return min(longest, math.pow(going_on, 0.3) * math.pow(usual, 0.7))
