"""Bytes that many questions may hold together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable


class ByteBudget:
    """Lends bytes, first come, first served. Whoever waits holds none, so that no two wait for each other."""

    def __init__(self, total: int) -> None:
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def lent(self, most: int) -> AsyncIterator[Callable[[int], None]]:
        """Hold `most` bytes meanwhile, which is at most the total.

        Yields:
            A function that lowers this to as many as turned out to be needed.
        """
        await self._take(most)
        held = most

        def lower(needed: int) -> None:
            nonlocal held
            more, held = held - needed, needed
            self._give(more)

        try:
            yield lower
        finally:
            self._give(held)

    async def _take(self, count: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        self._give(0)
        try:
            await turn
        except asyncio.CancelledError:
            # Its turn may have come in the same moment.
            self._give(0 if turn.cancelled() else count)
            raise

    def _give(self, count: int) -> None:
        self._left += count
        while self._waiting and (self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._left):
            taken, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= taken
                turn.set_result(None)
