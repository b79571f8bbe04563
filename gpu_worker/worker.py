"""The worker's life: boot the engine, keep it full, keep the leases, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from typing import Any

import redis.asyncio

from gpu_worker.answering import RetryPolicy
from gpu_worker.cancel_news import News
from gpu_worker.claim_loop import ClaimLoop
from gpu_worker.claims import Intake
from gpu_worker.engines.engine import Engine
from gpu_worker.gpus.slices import SliceClaim, SliceOptions
from gpu_worker.heartbeat import Leases, Progress
from gpu_worker.in_flight import InFlight
from gpu_worker.options import WorkerOptions, default_capacity
from gpu_worker.publisher import Publisher
from gpu_worker.reports.boot_report import Announcement
from gpu_worker.reports.engine_failures import record_engine_failure
from gpu_worker.reports.report import Report
from gpu_worker.reports.rq_identity import RqIdentity
from gpu_worker.returns import Returns
from gpu_worker.tasks import cancel_and_wait
from wire.clock import ServerClock
from wire.connection import RedisAddress, check_server, connect, connect_async, translated
from wire.errors import EngineBootError, EngineDeadError, EngineUnusableError, QueueUnavailableError
from wire.keys import Keys
from wire.retry import Backoff

log = logging.getLogger(__name__)

RQ_REPORT_S = 10.0
GPU_LOOK_S = 2.0
LAST_WORDS_S = 5.0
"""How long a worker that stops tries to write its last records and give back what it holds."""


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
        self._report = Report(
            engine.model,
            engine.kind,
            options.capacity or default_capacity(engine.max_num_seqs),
            engine_state=lambda: engine.state,
        )
        self._keys = Keys(address.namespace)
        self._clock = ServerClock()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._changed = asyncio.Event()
        self._died: EngineDeadError | EngineUnusableError | None = None
        self._broke: BaseException | None = None

    @property
    def report(self) -> Report:
        """What it says of itself, kept current; may be read from any thread."""
        return self._report

    def stop(self) -> None:
        """Take nothing more, finish what is held within `drain_s`, give back the rest. A second call gives back at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()
        self._changed.set()

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            EngineBootError: The engine did not start, or needs more GPUs than there are; no work was taken.
            EngineDeadError: It died or stopped making progress, or another worker has its GPUs; what was held is given back.
            EngineUnusableError: Somebody must do something about it first; the same.
            QueueUnusableError: Redis answers, but a fleet cannot live there.
        """
        with contextlib.closing(connect(self._address)) as sync_client:
            await asyncio.to_thread(self._wait_for_server, sync_client)
            self._client = connect_async(self._address)
            self._waiting_client = connect_async(self._address)
            try:
                await self._boot_and_serve(sync_client)
                if self._died is not None:
                    await record_engine_failure(self._client, self._address, self.name, self._engine.model, self._died)
            except EngineBootError as error:
                await record_engine_failure(self._client, self._address, self.name, self._engine.model, error)
                raise
            finally:
                await self._client.aclose()
                await self._waiting_client.aclose()
        ended_by = self._died or self._broke
        if ended_by is not None:
            raise ended_by

    async def _boot_and_serve(self, sync_client: redis.Redis) -> None:
        options = self._options
        slices = SliceClaim(
            self._client,
            self._address,
            self.name,
            self._slice,
            lease_s=options.lease_s,
            heartbeat_s=options.heartbeat_s,
        )
        announcement = Announcement(self._client, self._address, self.name, options.heartbeat_s)
        announcing = asyncio.create_task(announcement.repeat(self._report, self.stop))
        try:
            # Around the engine's whole life: whoever has the GPUs next must find them empty.
            async with slices.claimed(self._stopping, self._stand_by, self._engine_died) as self._report.gpus:
                try:
                    await self._boot()
                    announcing.cancel()
                    if not self._stopping.is_set():
                        await self._serve(sync_client)
                finally:
                    await self._engine.stop()
        finally:
            await cancel_and_wait([announcing])
            await announcement.withdraw()

    def _stand_by(self, waits_for: str) -> None:
        self._report.waits_for = waits_for
        self._report.state = "standby" if waits_for else "booting"

    async def _boot(self) -> None:
        if self._stopping.is_set():
            return
        booting = asyncio.create_task(self._engine.start())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({booting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if booting.done():
                booting.result()
        finally:
            await cancel_and_wait([booting])
            stopped.cancel()

    def _wait_for_server(self, client: redis.Redis) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
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

    async def _serve(self, sync_client: redis.Redis) -> None:
        model = self._engine.model
        self._report.capacity = self._options.capacity or default_capacity(self._engine.max_num_seqs)
        self._report.max_num_seqs = self._engine.max_num_seqs
        self._publisher = Publisher(
            self._client,
            self._address,
            self._keys,
            model,
            run_ttl_s=self._options.run_ttl_s,
            more_comes=lambda: self._report.in_flight > 1,
            caught_up=self._changed.set,
        )
        self._intake = Intake(self._client, self._keys, model, self.name, self._options)
        self._leases = Leases(self._client, self._keys, model, self.name, self._options, self._clock)
        self._in_flight = InFlight(
            self._engine,
            self._publisher,
            self._clock,
            RetryPolicy(self._options.question_timeout_s, self._options.max_attempts),
            self.name,
            self._report,
            left=self._changed.set,
            engine_died=self._engine_died,
        )
        self._taking = ClaimLoop(
            self._address,
            self.name,
            self._intake,
            Intake(self._waiting_client, self._keys, model, self.name, self._options),
            self._in_flight,
            self._publisher,
            self._report,
            engine=self._engine,
            changed=self._changed,
            stopping=self._stopping,
        )
        self._returns = Returns(self._address, self._intake, self._in_flight, self._publisher)
        self._progress = Progress(self._engine, self._options.stall_s)
        self._news = News(self._waiting_client, self._address)
        identity = RqIdentity(sync_client, self._keys, model, self.name)
        beside = (self._publisher.run(), self._beat(), self._news.listen(), self._show(identity))
        background = [asyncio.create_task(one) for one in beside]
        if self._report.gpus:
            background.append(asyncio.create_task(self._watch_gpus()))
        for task in background:
            task.add_done_callback(self._background_ended)
        words = "worker %s serves %s with %s, %d questions at a time"
        log.info(
            words,
            self.name,
            model,
            self._engine.kind,
            self._report.capacity,
            extra={"worker": self.name, "model": model},
        )
        self._report.state = "running"
        try:
            await self._taking.run()
            self._report.state = "draining"
            await self._drain()
        finally:
            await self._let_go()
            await cancel_and_wait(background)
            with contextlib.suppress(Exception):  # As above.
                await asyncio.to_thread(identity.leave)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        """A worker that no longer publishes or renews its leases must not keep taking work."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("stops: a bug in what runs beside the engine", exc_info=error)
            self._broke = error
            self.stop()
            self.stop()

    def _engine_died(self, error: EngineDeadError | EngineUnusableError) -> None:
        if self._died is None:
            log.critical("%s; giving up %d questions", error, self._report.in_flight, extra={"worker": self.name})
            self._died = error
            self._report.state = "dead" if isinstance(error, EngineDeadError) else "unusable"
            self.stop()
            self.stop()

    async def _beat(self) -> None:
        state = self._engine.state.kind
        while True:
            try:
                self._progress.check(busy=self._report.in_flight > 0)
                if self._engine.state.lets_go:
                    self._returns.begin()
                if state != (state := self._engine.state.kind):
                    self._changed.set()
                held = {*self._in_flight.batches, *self._publisher.unended, *self._returns.batches}
                with translated(self._address):
                    heard = await self._leases.renew(held, self._report.fields())
                if heard.drain and not self._stopping.is_set():
                    log.info("asked to drain")
                    self.stop()
                self._taking.take_turn(isolate=heard.isolate)
                self._in_flight.cancel(heard.cancelled)
                for batch in heard.lost:
                    self._in_flight.lose(batch)
            except (EngineDeadError, EngineUnusableError) as error:
                self._engine_died(error)
                return
            except QueueUnavailableError as error:
                log.warning("leases not renewed: %s", error)
            await self._news.wait(self._options.heartbeat_s)

    async def _show(self, identity: RqIdentity) -> None:
        """Keep RQ's own view of this worker true, roughly."""
        while True:
            try:
                await asyncio.to_thread(identity.report, busy=self._report.in_flight > 0)
            except Exception as error:  # noqa: BLE001 (RQ's sets may hold anything, and a worker works without its tools)
                log.info("not reported to RQ: %r", error)
            await asyncio.sleep(RQ_REPORT_S)

    async def _watch_gpus(self) -> None:
        """In a thread: NVML takes its time."""
        while True:
            self._report.gpu_use = await asyncio.to_thread(self._slice.gpus.use, self._report.gpus)
            await asyncio.sleep(GPU_LOOK_S)

    async def _drain(self) -> None:
        if self._in_flight.batches and not self._hurry.is_set():
            log.info("finishing %d questions within %g s", self._report.in_flight, self._options.drain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_s):
                while self._in_flight.batches and not self._hurry.is_set():
                    await self._something_changes()

    async def _something_changes(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _let_go(self) -> None:
        held = [*await self._returns.stop(), *await self._in_flight.abandon()]
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                # First the records, so that the next worker skips what is answered.
                await self._publisher.flushed()
                for batch in held:
                    with translated(self._address):
                        await self._intake.give_back(batch, engine_died=isinstance(self._died, EngineDeadError))
        except (TimeoutError, QueueUnavailableError, redis.RedisError, OSError) as error:
            log.warning(
                "left without giving back %d batches (%s); their leases will lapse", len(held), error or "timeout"
            )
        else:
            if held:
                log.info("gave back %d batches", len(held))
