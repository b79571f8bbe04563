"""A handle on a run, for programs on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal, Self, overload

from batchfleet.client.answers import Answer, Failure
from batchfleet.client.live_run import LiveRun
from batchfleet.client.question_errors import Errors, check_errors, raise_if_failed
from batchfleet.client.run_handle import FIRST_LOOK_S, LONGEST_LOOK_S, not_in_time
from batchfleet.client.run_status import RunStatus
from batchfleet.client.session import Session


class Signal:
    """An event of one loop that other threads may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        # A loop that has been closed has nobody waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Return when it was set since the last time."""
        await self._event.wait()
        self._event.clear()


class AsyncRun:
    """`Run` for asyncio: questions that were submitted together, found again by `AsyncFleet.run(id)`."""

    def __init__(self, session: Session, run: str) -> None:
        self._changed = Signal()
        self._live = LiveRun(session, run, self._changed.set)
        self._feeding: asyncio.Task[None] | None = None
        self.id = run

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @overload
    def results(
        self, *, errors: Literal["raise"] = "raise", timeout_s: float | None = None
    ) -> AsyncIterator[Answer]: ...
    @overload
    def results(self, *, errors: Errors, timeout_s: float | None = None) -> AsyncIterator[Answer | Failure]: ...
    async def results(
        self, *, errors: Errors = "raise", timeout_s: float | None = None
    ) -> AsyncIterator[Answer | Failure]:
        """As `Run.results`."""
        check_errors(errors)
        await asyncio.to_thread(self._live.collect)
        while True:
            # What was taken before is handled now: `take` says so, and it comes before any wait.
            self._live.outbox.acknowledge()
            outbox = self._live.outbox
            try:
                async with asyncio.timeout(timeout_s):
                    while not outbox.is_ready:
                        await self._changed.wait()
            except TimeoutError:
                raise TimeoutError(f"no answer within {timeout_s:g} s; the run continues") from None
            result = self._live.outbox.take(0)
            if result is None:
                return
            yield raise_if_failed(result, errors)

    async def wait(self, timeout_s: float | None = None) -> RunStatus:
        """As `Run.wait`."""
        pause_s = FIRST_LOOK_S
        try:
            async with asyncio.timeout(timeout_s):
                while not await asyncio.to_thread(self._live.is_over):
                    await asyncio.sleep(pause_s)
                    pause_s = min(1.5 * pause_s, LONGEST_LOOK_S)
        except TimeoutError:
            raise not_in_time(self.id, timeout_s or 0.0) from None
        return await self.status()

    async def status(self) -> RunStatus:
        """As `Run.status`."""
        return await asyncio.to_thread(self._live.status)

    async def cancel(self) -> RunStatus:
        """As `Run.cancel`."""
        return await asyncio.to_thread(self._live.cancel)

    async def close(self) -> None:
        """As `Run.close`."""
        if self._feeding is not None:
            self._feeding.cancel()
        await asyncio.to_thread(self._live.leave)
