"""The time limit of a question."""

from __future__ import annotations

import asyncio

import pytest

from gpu_worker.cancellation import TimeLimit


async def test_what_takes_too_long_is_a_timeout_and_the_task_goes_on() -> None:
    """As with `asyncio.timeout`, also one within the other: nothing is left of the cancellation."""
    with pytest.raises(TimeoutError), TimeLimit(60), TimeLimit(0):
        await asyncio.Event().wait()
    with TimeLimit(60):
        await asyncio.sleep(0)

    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_task_that_is_cancelled_as_its_time_ends_is_cancelled() -> None:
    """Whoever takes a question out of the engine would otherwise see it fail, and its batch end."""

    async def limited() -> None:
        with TimeLimit(0):
            await asyncio.Event().wait()

    task = asyncio.create_task(limited())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0, task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task
