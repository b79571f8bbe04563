"""What a worker does once its engine has booted: keep it full, keep the leases, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import redis.asyncio

from gpu_worker.batch_return import BatchReturn
from gpu_worker.cancel_news import CancelNews
from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.claim_loop import ClaimLoop
from gpu_worker.claims import Intake
from gpu_worker.engines.engine import Engine
from gpu_worker.gpus.devices import Gpus
from gpu_worker.heartbeat import Leases, Progress
from gpu_worker.in_flight import InFlight
from gpu_worker.options import WorkerOptions, default_capacity
from gpu_worker.outcome import RetryPolicy
from gpu_worker.publisher import Publisher
from gpu_worker.reports.rq_identity import RqIdentity
from gpu_worker.reports.worker_report import Report
from gpu_worker.stop_signal import StopSignal
from wire.address import RedisAddress
from wire.clock import ServerClock
from wire.errors import EngineDeadError, EngineUnusableError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

RQ_REPORT_S = 10.0
GPU_LOOK_S = 2.0
LAST_WORDS_S = 5.0
"""How long a worker that stops tries to write its last records and give back what it holds."""


class Service:
    """One worker at work.

    Args:
        client, waiting_client: The second is for calls that block.
        report: Kept current; its model and GPUs are those of the engine.
        signal: When and why to stop.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the worker by itself)
        self,
        address: RedisAddress,
        client: redis.asyncio.Redis,
        waiting_client: redis.asyncio.Redis,
        name: str,
        engine: Engine,
        options: WorkerOptions,
        *,
        report: Report,
        clock: ServerClock,
        signal: StopSignal,
        identity: RqIdentity,
        gpus: Gpus,
    ) -> None:
        keys, model = Keys(address.namespace), engine.model
        self._address = address
        self._name = name
        self._engine = engine
        self._options = options
        self._report = report
        self._signal = signal
        self._identity = identity
        self._gpus = gpus
        self._publisher = Publisher(
            client,
            address,
            keys,
            model,
            run_ttl_s=options.run_ttl_s,
            more_comes=lambda: self._in_flight.questions > 1,
            caught_up=signal.changed.set,
        )
        self._intake = Intake(client, keys, model, name, options)
        self._leases = Leases(client, keys, model, name, options, clock)
        self._in_flight = InFlight(
            engine,
            self._publisher,
            clock,
            RetryPolicy(options.question_timeout_s, options.max_attempts),
            name,
            report,
            left=signal.changed.set,
            engine_died=signal.engine_died,
        )
        self._taking = ClaimLoop(
            address,
            name,
            self._intake,
            Intake(waiting_client, keys, model, name, options),
            self._in_flight,
            self._publisher,
            capacity=options.capacity or default_capacity(engine.max_num_seqs),
            engine=engine,
            changed=signal.changed,
            stopping=signal.stopping,
        )
        self._batch_return = BatchReturn(address, self._intake, self._in_flight, self._publisher)
        self._progress = Progress(engine, options.stall_s)
        self._news = CancelNews(waiting_client, address)

    async def run(self) -> None:
        """Work until stopped; then finish what is held within `drain_s`, and give back the rest."""
        beside = [self._publisher.run(), self._beat(), self._news.listen(), self._show()]
        beside += [self._watch_gpus()] if self._report.gpus else []
        background = [asyncio.create_task(one) for one in beside]
        for task in background:
            task.add_done_callback(self._signal.background_ended)
        words = "worker %s serves %s with %s, %d questions at a time"
        ids = {"worker": self._name, "model": self._engine.model}
        log.info(words, self._name, self._engine.model, self._engine.kind, self._report.capacity, extra=ids)
        self._report.state = "running"
        try:
            await self._taking.run()
            self._report.state = _ending_state(self._signal.error)
            await self._drain()
        finally:
            await self._let_go()
            await cancel_and_wait(background)
            with contextlib.suppress(Exception):  # As above.
                await asyncio.to_thread(self._identity.leave)

    async def _beat(self) -> None:
        state = self._engine.state.kind
        while True:
            try:
                self._progress.check(busy=self._in_flight.questions > 0)
                if self._engine.state.lets_go:
                    self._batch_return.begin()
                if state != (state := self._engine.state.kind):
                    self._signal.changed.set()
                await self._renew()
            except (EngineDeadError, EngineUnusableError) as error:
                self._signal.engine_died(error)
                return
            except QueueUnavailableError as error:
                log.warning("leases not renewed: %s", error)
            await self._news.wait(self._options.heartbeat_s)

    async def _renew(self) -> None:
        held = {*self._in_flight.batches, *self._publisher.unended, *self._batch_return.batches}
        with translated(self._address):
            heard = await self._leases.renew(held, self._report.fields())
        if heard.drain and not self._signal.stopping.is_set():
            log.info("asked to drain")
            self._signal.stop()
        self._taking.take_turn(isolate=heard.isolate)
        self._in_flight.cancel(heard.cancelled)
        for batch in heard.lost:
            self._in_flight.lose(batch)

    async def _show(self) -> None:
        """Keep RQ's own view of this worker true, roughly."""
        while True:
            try:
                await asyncio.to_thread(self._identity.report, busy=self._in_flight.questions > 0)
            except Exception as error:  # noqa: BLE001 (RQ's sets may hold anything, and a worker works without its tools)
                log.info("not reported to RQ: %r", error)
            await asyncio.sleep(RQ_REPORT_S)

    async def _watch_gpus(self) -> None:
        """In a thread, as NVML is slow."""
        while True:
            self._report.gpu_use = await asyncio.to_thread(self._gpus.use, self._report.gpus)
            await asyncio.sleep(GPU_LOOK_S)

    async def _drain(self) -> None:
        hurry, changed = self._signal.hurry, self._signal.changed
        if self._in_flight.batches and not hurry.is_set():
            log.info("finishing %d questions within %g s", self._in_flight.questions, self._options.drain_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_s):
                while self._in_flight.batches and not hurry.is_set():
                    changed.clear()
                    await changed.wait()

    async def _let_go(self) -> None:
        held = [*await self._batch_return.stop(), *await self._in_flight.abandon()]
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                # First the records, so that the next worker skips what is answered.
                await self._publisher.flushed()
                for batch in held:
                    with translated(self._address):
                        engine_died = isinstance(self._signal.error, EngineDeadError)
                        await self._intake.give_back(batch, engine_died=engine_died)
        except (TimeoutError, QueueUnavailableError, redis.RedisError, OSError) as error:
            words = "left without giving back %d batches (%s); their leases will lapse"
            log.warning(words, len(held), error or "timeout")
        else:
            if held:
                log.info("gave back %d batches", len(held))


def _ending_state(error: BaseException | None) -> str:
    if isinstance(error, EngineUnusableError):
        return "unusable"
    return "dead" if isinstance(error, EngineDeadError) else "draining"
