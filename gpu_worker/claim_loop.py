"""When a worker takes its next batch."""

from __future__ import annotations

import asyncio
import logging

from gpu_worker.claims import Intake
from gpu_worker.engines.engine import Engine
from gpu_worker.in_flight import InFlight
from gpu_worker.publisher import Publisher
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.errors import QueueUnavailableError
from wire.redis_errors import translated

log = logging.getLogger(__name__)


class ClaimLoop:
    """Keeps the engine full, and no fuller.

    Below what the engine works on at once, whatever waits is taken; above it, only from a backlog: near the end of a
    run, a question that waits in one engine would be answered sooner by another.

    Args:
        worker: Name of the worker, for the log.
        capacity: Most questions in flight.
        waiting_intake: The same as `intake` on a connection of its own, for calls that block.
        changed: Set by others whenever there may be room again, the engine's state has changed, and when the worker
            stops.
        stopping: Set when the worker is to take nothing more.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the worker by itself)
        self,
        address: RedisAddress,
        worker: str,
        intake: Intake,
        waiting_intake: Intake,
        in_flight: InFlight,
        publisher: Publisher,
        *,
        capacity: int,
        engine: Engine,
        changed: asyncio.Event,
        stopping: asyncio.Event,
    ) -> None:
        self._address = address
        self._worker = worker
        self._intake = intake
        self._waiting_intake = waiting_intake
        self._in_flight = in_flight
        self._publisher = publisher
        self._capacity = capacity
        self._engine = engine
        self._changed = changed
        self._stopping = stopping
        self._isolating = asyncio.Event()

    async def run(self) -> None:
        """Claim batches while there is room for a question, and only then. Returns when the worker is to stop."""
        backoff = Backoff(first_s=0.05)
        while not self._stopping.is_set():
            # Before the look at what is in flight: what changes from now on ends the waiting below.
            self._changed.clear()
            held = self._in_flight.questions
            full = held >= self._capacity or self._publisher.is_behind
            if full or self._engine.state.kind != "ready" or (self._isolating.is_set() and held > 0):
                await self._changed.wait()
                continue
            try:
                with translated(self._address):
                    if self._isolating.is_set():
                        await self._take_isolated()
                        continue
                    room = min(self._engine.max_num_seqs, self._capacity) - held
                    batches = await self._intake.claim(room)
                    for batch in batches:
                        self._in_flight.begin(batch)
                    if not batches and room > 0:
                        await self._wait_for_batch()
                    elif not batches:
                        await self._changed.wait()
                backoff.reset()
            except QueueUnavailableError as error:
                pause_s = backoff.next_s()
                log.warning("%s; trying again in %.1f s", error, pause_s)
                await asyncio.sleep(pause_s)

    def take_turn(self, *, isolate: bool) -> None:
        """Whether it is this worker's turn to run a batch alone that may kill the engine."""
        if isolate:
            # Whatever it waits for now, a batch that must run alone has waited longer.
            self._isolating.set()
            self._changed.set()
        else:
            self._isolating.clear()

    async def _take_isolated(self) -> None:
        """Take one batch that may kill the engine, now that nothing else is in it."""
        batch = await self._intake.claim_isolated()
        if batch is None:
            self._isolating.clear()
            await self._intake.stop_isolating()
            return
        words = "runs %d questions of batch %s alone: its workers keep dying"
        log.warning(
            words, len(batch.questions), batch.batch_id, extra={"batch": batch.batch_id, "worker": self._worker}
        )
        self._in_flight.begin(batch)

    async def _wait_for_batch(self) -> None:
        waiting = asyncio.create_task(self._waiting_intake.wait())
        ends = [waiting, *(asyncio.create_task(event.wait()) for event in (self._stopping, self._isolating))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
