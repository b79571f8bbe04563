"""Gives back questions of an engine that cannot answer for now, while the worker continues."""

from __future__ import annotations

import asyncio
import logging

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.claims import HeldBatch, Intake
from gpu_worker.in_flight import InFlight
from gpu_worker.publisher import Publisher
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.errors import QueueUnavailableError
from wire.redis_errors import translated

log = logging.getLogger(__name__)


class BatchReturn:
    """Of all batches that are in the engine.

    No attempt is counted: another worker may have them, or this one once its engine is well.
    """

    def __init__(self, address: RedisAddress, intake: Intake, in_flight: InFlight, publisher: Publisher) -> None:
        self._address = address
        self._intake = intake
        self._in_flight = in_flight
        self._publisher = publisher
        self._task: asyncio.Task[None] | None = None
        self.batches: list[HeldBatch] = []
        """Those on their way back: until they are there, their leases are to be renewed."""

    def begin(self) -> None:
        """Give everything back that is in the engine, if that is not under way."""
        if self._in_flight.batches and not self.batches:
            self.batches = self._in_flight.batches
            self._task = asyncio.create_task(self._give_back())

    async def stop(self) -> list[HeldBatch]:
        """Give nothing back any more; returns what is still on its way."""
        if self._task is not None:
            await cancel_and_wait([self._task])
        return self.batches

    async def _give_back(self) -> None:
        await self._in_flight.abandon()
        # First the records, so that the next worker skips what is answered.
        await self._publisher.flushed()
        log.info("gives back %d batches", len(self.batches))
        backoff = Backoff()
        while self.batches:
            try:
                with translated(self._address):
                    await self._intake.give_back(self.batches[0], engine_died=False)
            except QueueUnavailableError as error:
                pause_s = backoff.next_s()
                log.warning("not given back: %s; trying again in %.1f s", error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self.batches.pop(0)
