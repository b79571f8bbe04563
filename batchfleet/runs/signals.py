"""Ctrl-C, SIGTERM and a terminal that is gone: the first asks to stop in order, the second stops at once.

What is said then is in `resume_hint`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Used in a `with` statement, around all that may be interrupted.

    The second signal raises KeyboardInterrupt where the program is. The first does not: Python drops what is raised in
    the middle of a callback of its own, so whoever has nothing to be called for asks with `check`.

    Attributes:
        asked: Whether we were told to stop.
    """

    def __init__(self) -> None:
        self.asked = False
        self._stop: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        # A terminal that is gone is nothing to `nohup`, which has it ignored, and so it stays.
        numbers = [
            number for number in NUMBERS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._before = {number: signal.signal(number, self._signalled) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def calls(self, stop: Callable[[], None]) -> None:
        """Have the first signal call this. It is called from a signal handler: it may set a flag, no more."""
        self._stop = stop
        if self.asked:
            stop()

    def check(self) -> None:
        """Raise KeyboardInterrupt if we were told to stop."""
        if self.asked:
            raise KeyboardInterrupt

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._stop is not None:
            self._stop()
