"""Waiting for what tasks bring about, and not a moment longer than they can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], object], *work: asyncio.Future[Any]) -> None:
    """Return when `condition` holds. Once all of `work` has ended without bringing it about, raise what ended it."""
    while not condition():
        if work and all(task.done() for task in work):
            results = [task.result() for task in work]
            raise AssertionError(f"it ended before what was waited for: {results}")
        await asyncio.sleep(0.01)
