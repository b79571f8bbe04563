"""How fast a worker answers now. Pure: the clock is the caller's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

SHORTEST_S = 5.0
LONGEST_S = 30.0
ENOUGH_DONE = 100
"""So many answers tell the rate to within a tenth.

A slow engine makes fewer in `LONGEST_S`, and has to do with these.
"""
REST_S = 10.0
"""Questions that come so rarely or more often have a rate; after a longer gap a new one begins."""


class RateSample(NamedTuple):
    """One look at the counts: seconds on a monotonic clock; questions and tokens done by then.

    Whether any were in the engine.
    """

    at_s: float
    done: int
    tokens: int
    working: bool


@dataclass(slots=True)
class Rates:
    """Watches the counts of one worker, look by look.

    The rate is that of the last `ENOUGH_DONE` answers or more, in a window of `SHORTEST_S` to `LONGEST_S`. It never
    reaches back over a rest, so that neither an idle hour nor the boot of the engine makes a run that has just begun
    look slow.
    """

    _looks: deque[RateSample] = field(default_factory=deque)
    _worked_at_s: float | None = None

    def observe(self, look: RateSample) -> None:
        before = self._looks[-1] if self._looks else None
        moved = before is not None and before.done != look.done
        if look.working or moved:
            if self._rested_s(look.at_s) >= REST_S:
                # What is done already was begun since the look before; else the work began just now.
                self._looks = deque([before] if moved and before is not None else [])
            self._worked_at_s = look.at_s
        self._looks.append(look)
        while len(self._looks) > 1 and look.at_s - self._looks[0].at_s > LONGEST_S:
            self._looks.popleft()

    def per_s(self) -> tuple[float, float]:
        """Questions and tokens per second; 0 for a worker at rest."""
        if len(self._looks) < 2 or self._rested_s(self._looks[-1].at_s) >= REST_S:  # noqa: PLR2004 (a window has two ends)
            return 0.0, 0.0
        now, began = self._looks[-1], self._looks[0]
        for look in reversed(self._looks):
            began = look
            if now.at_s - look.at_s >= SHORTEST_S and now.done - look.done >= ENOUGH_DONE:
                break
        passed_s, done = now.at_s - began.at_s, now.done - began.done
        if done < ENOUGH_DONE:
            # The first answer, a second after it was asked for, does not make one in each second.
            passed_s = max(passed_s, SHORTEST_S)
        return done / passed_s, (now.tokens - began.tokens) / passed_s

    def _rested_s(self, now_s: float) -> float:
        return float("inf") if self._worked_at_s is None else now_s - self._worked_at_s
