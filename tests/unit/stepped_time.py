"""An event loop whose time passes only when nothing else is left to do, and then at once.

Hours of waiting take no time, to the microsecond.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from selectors import SelectorKey
from typing import TypeVar

Result = TypeVar("Result")


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its time begins at 0."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Stepping(self))

    def time(self) -> float:
        return self._now_s

    def step(self, seconds: float) -> None:
        self._now_s += seconds


class _Stepping(selectors.DefaultSelector):
    """Where the loop would wait, time is moved on."""

    def __init__(self, loop: SteppedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None:
            return super().select()
        found = super().select(0)
        if not found:
            self._loop.step(max(0.0, timeout))
        return found


def run_stepped(main: Coroutine[object, object, Result]) -> Result:
    """Run it to its end on such a loop."""
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        return runner.run(main)
