"""Ends tasks for certain, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, cast

AGAIN_S = 0.5


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended, however they end.

    Once is not enough: in Python 3.11 `asyncio.wait_for`, by which redis-py sends, swallows a cancellation that comes
    just as it is done.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        done, running = await asyncio.wait(running, timeout=AGAIN_S)
        await asyncio.gather(*done, return_exceptions=True)


class TimeLimit:
    """Cancels what the task does within it after so many seconds, and makes a TimeoutError of that.

    As `asyncio.timeout` does, for a third of what that costs each question.
    """

    __slots__ = ("_cancelling", "_is_over", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._is_over = False
        # None only outside of any task, where nothing can be awaited.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task(loop))
        self._cancelling = self._task.cancelling()
        self._timer = loop.call_later(seconds, self._end)

    def __enter__(self) -> None:
        """The time runs since it was made."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Whoever else cancelled the task meanwhile is to see it cancelled.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _end(self) -> None:
        self._is_over = True
        self._task.cancel()
