"""The signal that a worker is to stop, and why."""

from __future__ import annotations

import asyncio
import logging

from wire.errors import EngineDeadError, EngineUnusableError

log = logging.getLogger(__name__)


class StopSignal:
    """Of one worker.

    Attributes:
        stopping: Take nothing more.
        hurry: Finish nothing either.
        changed: Set whenever there may be room for questions again, or the worker is to stop.
        error: Why, if it does not stop because it was told to.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self.changed = asyncio.Event()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Take nothing more, and finish what is held; at the second call, not even that."""
        if self.stopping.is_set():
            self.hurry.set()
        self.stopping.set()
        self.changed.set()

    def engine_died(self, error: EngineDeadError | EngineUnusableError) -> None:
        """The first one that is told of counts."""
        if self.error is None:
            log.critical("%s", error)
            self._fail(error)

    def background_ended(self, task: asyncio.Task[None]) -> None:
        """A worker that no longer publishes or renews its leases must not keep taking work."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("stops: a bug in what runs beside the engine", exc_info=error)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stopping.set()
        self.hurry.set()
        self.changed.set()
