"""How fast a run goes, and how long it will still take. Pure: the clock is the caller's."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

LOOK_BACK_S = 300.0
"""A rate older than this says nothing of the workers of today."""
MOST_LOOKS = 512
LEAST_DONE = 20
LEAST_SHARE = 0.02
LAST = 0.56
"""The last of many has on average so many behind it: exp of minus Euler's constant, as for the largest of independent draws."""
STEPS = 20


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a run: seconds on a monotonic clock; questions and tokens done by then, by this process."""

    at_s: float
    done: int
    tokens: int


class Pace:
    """Watches a run.

    Rates are those of the later half of what is done, at most of the last `LOOK_BACK_S` seconds. The first answers would mislead: nothing ends
    before the shortest answer does, and then the short ones come first. So would the last ones: while the engines run empty, ever fewer end.
    """

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._most_in_flight = 0
        self.questions_per_s = 0.0
        self.tokens_per_s = 0.0

    def observe(self, look: Look, left: int, in_flight: int) -> None:
        """Take in how it stands. `left`: questions without a record; `in_flight`: those of them in engines, as far as is known."""
        if self._looks and look.done == self._looks[-1].done and look.at_s - self._looks[-1].at_s < LOOK_BACK_S / MOST_LOOKS:
            return
        self._looks.append(look)
        if len(self._looks) > MOST_LOOKS:
            # Every second one, so that what is kept does not grow with the run.
            self._looks = deque(list(self._looks)[::2])
        self._most_in_flight = max(self._most_in_flight, min(in_flight, left))
        running_empty = self.questions_per_s > 0 and left < self._most_in_flight
        began = self._began(look)
        passed_s = look.at_s - began.at_s
        if passed_s > 0 and not running_empty:
            self.questions_per_s = (look.done - began.done) / passed_s
            self.tokens_per_s = (look.tokens - began.tokens) / passed_s

    def _began(self, now: Look) -> Look:
        """The look from which on the rate is taken."""
        half = [look for look in self._looks if look.done >= now.done / 2 or now.at_s - look.at_s <= 1]
        recent = [look for look in half if now.at_s - look.at_s <= LOOK_BACK_S]
        return (recent or half)[0]

    def left_s(self, questions: int, left: int, lengths: Sequence[int]) -> float | None:
        """Seconds until the last answer; None if it is too early to tell.

        Args:
            questions: Of the run in all.
            left: Of these without a record.
            lengths: Tokens of some answers, of the latest best.
        """
        done, full = self._looks[-1].done if self._looks else 0, self._most_in_flight
        enough = done >= LEAST_DONE and done >= LEAST_SHARE * questions and done >= full
        if not self.questions_per_s or not (enough or 10 * done >= questions):
            return None
        if not full or not any(lengths):
            return left / self.questions_per_s
        # With `full` questions at once in the engines, one takes full / rate seconds (Little's law).
        s_per_token = full / self.questions_per_s / fmean(lengths)
        waiting_s = max(0, left - full) / self.questions_per_s
        return waiting_s + s_per_token * (residual(lengths, LAST / full) - residual(lengths, min(1.0, left / full)))


def residual(lengths: Sequence[int], share: float) -> float:
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
