"""The worker's life: claim GPUs, boot the engine, serve, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from typing import Any, NamedTuple

import redis.asyncio

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import Engine
from gpu_worker.gpus.slice_claim import SliceClaim
from gpu_worker.gpus.slices import SliceOptions
from gpu_worker.options import WorkerOptions, default_capacity
from gpu_worker.reports.boot_report import BootReport
from gpu_worker.reports.engine_failures import record_engine_failure
from gpu_worker.reports.rq_identity import RqIdentity
from gpu_worker.reports.worker_report import Report
from gpu_worker.service import Service
from gpu_worker.stop_signal import StopSignal
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.clock import ServerClock
from wire.connection import check_server, connect, connect_async
from wire.errors import EngineBootError, EngineDeadError, EngineUnusableError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)


class Clients(NamedTuple):
    """A worker's connections: for short calls, for calls that wait, and for threads."""

    quick: redis.asyncio.Redis
    waiting: redis.asyncio.Redis
    blocking: redis.Redis


class GpuWorker:
    """One worker process, bound to one engine, and to the GPUs that it claims for it."""

    def __init__(
        self, address: RedisAddress, engine: Engine, options: WorkerOptions, gpus: SliceOptions | None = None
    ) -> None:
        # Never a fixed name: a worker that was killed could not register again under it.
        self.name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._address = address
        self._engine = engine
        self._options = options
        self._slice = gpus or SliceOptions()
        self._clock = ServerClock()
        self._report = Report(
            engine.model,
            engine.kind,
            options.capacity or default_capacity(engine.max_num_seqs),
            engine_state=lambda: engine.state,
            clock_ahead_s=self._clock.ahead_s,
        )
        self._signal = StopSignal()

    @property
    def report(self) -> Report:
        """What it says of itself, kept current; may be read from any thread."""
        return self._report

    def stop(self) -> None:
        """Take nothing more, finish what is held within `drain_s`, give back the rest.

        A second call gives back at once.
        """
        self._signal.stop()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            EngineBootError: The engine did not start, or needs more GPUs than there are; no work was taken.
            EngineDeadError: It died or stopped making progress, or another worker has its GPUs; what was held is given
                back.
            EngineUnusableError: Somebody must do something about it first; the same.
            QueueUnusableError: Redis answers, but a fleet cannot live there.
        """
        with contextlib.closing(connect(self._address)) as blocking:
            await asyncio.to_thread(self._wait_for_server, blocking)
            clients = Clients(connect_async(self._address), connect_async(self._address), blocking)
            try:
                await self._boot_and_serve(clients)
                if isinstance(self._signal.error, EngineDeadError | EngineUnusableError):
                    await self._record_failure(clients, self._signal.error)
            except EngineBootError as error:
                await self._record_failure(clients, error)
                raise
            finally:
                await clients.quick.aclose()
                await clients.waiting.aclose()
        if self._signal.error is not None:
            raise self._signal.error

    async def _boot_and_serve(self, clients: Clients) -> None:
        options, signal = self._options, self._signal
        slices = SliceClaim(
            clients.quick,
            self._address,
            self.name,
            self._slice,
            lease_s=options.lease_s,
            heartbeat_s=options.heartbeat_s,
        )
        announcement = BootReport(clients.quick, self._address, self.name, options.heartbeat_s)
        announcing = asyncio.create_task(announcement.repeat(self._report, self.stop))
        try:
            # Around the engine's whole life: whoever has the GPUs next must find them empty.
            async with slices.claimed(signal.stopping, self._stand_by, signal.engine_died) as self._report.gpus:
                try:
                    await self._boot()
                    announcing.cancel()
                    if not signal.stopping.is_set():
                        await self._serve(clients)
                finally:
                    await self._engine.stop()
        finally:
            await cancel_and_wait([announcing])
            await announcement.withdraw()

    async def _record_failure(
        self, clients: Clients, error: EngineDeadError | EngineUnusableError | EngineBootError
    ) -> None:
        await record_engine_failure(clients.quick, self._address, self.name, self._engine.model, error)

    def _stand_by(self, waits_for: str) -> None:
        if waits_for:
            # Whoever waits for the GPUs of another is to answer soon after that one has gone.
            self._engine.prepare()
        self._report.waits_for = waits_for
        self._report.state = "standby" if waits_for else "booting"

    async def _boot(self) -> None:
        if self._signal.stopping.is_set():
            return
        booting = asyncio.create_task(self._engine.start())
        stopped = asyncio.create_task(self._signal.stopping.wait())
        try:
            await asyncio.wait({booting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if booting.done():
                booting.result()
        finally:
            await cancel_and_wait([booting])
            stopped.cancel()

    def _wait_for_server(self, client: redis.Redis) -> None:
        backoff = Backoff()
        while not self._signal.stopping.is_set():
            try:
                check_server(client, self._address, wait_for_primary=True)
                with translated(self._address):
                    now: Any = client.time()
            except QueueUnavailableError as error:
                pause_s = backoff.next_s()
                log.warning("%s; trying again in %.1f s", error, pause_s)
                time.sleep(pause_s)
            else:
                # Before the first batch, so that a wrong clock here lets no question expire.
                self._clock.learn(now[0] + now[1] / 1e6)
                return

    async def _serve(self, clients: Clients) -> None:
        self._report.capacity = self._options.capacity or default_capacity(self._engine.max_num_seqs)
        self._report.max_num_seqs = self._engine.max_num_seqs
        service = Service(
            self._address,
            clients.quick,
            clients.waiting,
            self.name,
            self._engine,
            self._options,
            report=self._report,
            clock=self._clock,
            signal=self._signal,
            identity=RqIdentity(clients.blocking, Keys(self._address.namespace), self._engine.model, self.name),
            gpus=self._slice.gpus,
        )
        await service.run()
