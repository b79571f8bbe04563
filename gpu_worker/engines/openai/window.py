"""How many requests may be open at a server: as many as it proves to take.

Pure: the clock is the caller's, in seconds, and only goes forward.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

START = 16
"""Requests open at first at a server of which nothing is known."""
QUIET_S = 1.0
"""A server that refuses does so at once: what it has not refused after this long, it has taken."""
QUIET_GROWTH = 0.5
PATIENCE, SHORTEST_PATIENCE, LONGEST_PATIENCE = 8, 2, 64
"""For how many windows of answers the size stays at a known ceiling before one more is tried."""
COLLAPSE = 0.5
"""More requests open and less than this share of the answers per second: the server thrashes."""
FEWEST_ANSWERS = 8
MEMORY = 0.97
"""How much of what was measured before counts beside a new answer."""


class RequestWindow:
    """Additive up, halved when the server refuses or collapses; from 1 to `maximum`.

    Until the first refusal it grows by one with each answer (TCP's slow start), and by half in a second without a
    refusal. A refusal shows the ceiling: what was open when the first of a burst was refused. From half of its size it
    grows back to there with the next answers, and then tries one more, later two, four, and so on, after some windows
    of answers without a refusal; after more of them each time that the ceiling holds.
    """

    def __init__(self, maximum: int, start: int = START, *, now: float) -> None:
        self._maximum = maximum
        self._start = min(start, maximum)
        self.restart(now)

    def restart(self, now: float) -> None:
        """Forget what was learned: the server was away, and may be another one."""
        self.size = self._start
        """Most requests that may be open."""
        self._ceiling: int | None = None
        self._patience = PATIENCE
        self._step = 1
        self._answers = 0
        self._halved_at = float("-inf")
        self._grown_at = now
        self._rates: defaultdict[int, _Rate] = defaultdict(_Rate)

    def answered(self, now: float, *, sent_at: float, open_then: int, is_full: bool) -> None:
        """A request was answered.

        Args:
            open_then: Requests that were open as it was sent, itself included.
            is_full: As many are open as the size allows; room that nobody wants to use says nothing.
        """
        # Of the same magnitude is the same: 8 to 15, 16 to 31, ...
        self._rates[open_then.bit_length()].add(open_then, now - sent_at)
        if not is_full:
            return
        if self._is_collapsed() and sent_at > self._halved_at:
            self._halve(now, ceiling=max(1, self.size // 2), patience=SHORTEST_PATIENCE)
            return
        self._answers += 1
        if self._ceiling is None or self.size < self._ceiling:
            self._grow(1, now)
        elif self._answers >= self._patience * self.size and self.size < self._maximum:
            if self._step > 1:
                # The step before held: the server takes more than it did.
                self._patience = SHORTEST_PATIENCE
            self._ceiling = min((self._ceiling or self.size) + self._step, self._maximum)
            self._step *= 2
            self._grow(1, now)

    def refused(self, now: float, *, sent_at: float, open_then: int) -> None:
        """A request was refused as one too many; the arguments are those of `answered`."""
        ceiling = min(max(1, open_then - 1), self._maximum)
        if sent_at <= self._halved_at:
            # Of the same burst: it was sent before the size was halved. The first of them to be sent shows what the
            # server takes.
            self._ceiling = min(self._ceiling or ceiling, ceiling)
            self.size = min(self.size, self._ceiling)
            return
        is_known = self._ceiling is not None and ceiling >= self._ceiling - self._step
        self._halve(now, ceiling=ceiling, patience=min(2 * self._patience, LONGEST_PATIENCE) if is_known else PATIENCE)

    def tick(self, now: float, *, is_full: bool) -> None:
        """To be called about every second: answers may take minutes, refusals do not."""
        if is_full and self._ceiling is None and now - self._grown_at >= QUIET_S:
            self._grow(max(1, int(self.size * QUIET_GROWTH)), now)

    def _grow(self, by: int, now: float) -> None:
        size = min(self.size + by, self._maximum if self._ceiling is None else self._ceiling)
        if size != self.size:
            self.size, self._grown_at, self._answers = size, now, 0

    def _halve(self, now: float, *, ceiling: int, patience: int) -> None:
        self._rates.pop(self.size.bit_length(), None)
        self._ceiling, self._patience, self._step = ceiling, patience, 1
        self.size = max(1, min(self.size // 2, ceiling))
        self._halved_at, self._answers = now, 0

    def _is_collapsed(self) -> bool:
        """Whether requests of the present magnitude are answered at under `COLLAPSE` of a smaller one's rate."""
        magnitude = self.size.bit_length()
        now = self._rates[magnitude]
        known = [
            rate.per_s for size, rate in self._rates.items() if size < magnitude and rate.answers >= FEWEST_ANSWERS
        ]
        return now.answers >= max(FEWEST_ANSWERS, self.size) and now.per_s < COLLAPSE * max(known, default=0.0)


@dataclass(slots=True)
class _Rate:
    """Answers per second with so many requests open, by Little's law: open requests / seconds that each takes.

    Older answers fade.
    """

    answers: int = 0
    open_sum: float = 0.0
    seconds_sum: float = 0.0

    def add(self, open_then: int, took_s: float) -> None:
        self.answers += 1
        self.open_sum = MEMORY * self.open_sum + open_then
        self.seconds_sum = MEMORY * self.seconds_sum + max(took_s, 0.0)

    @property
    def per_s(self) -> float:
        return self.open_sum / self.seconds_sum if self.seconds_sum > 0 else float("inf")
