"""Ends tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

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
