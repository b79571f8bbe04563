"""What a worker has in its engine: questions that run independently, and the batches that they came in.

A batch whose lease was lost leaves it here: its questions are taken out of the engine, and nothing of it is ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.claims import HeldBatch
from gpu_worker.engines.engine import Engine, Refusal
from gpu_worker.outcome import CANCELLED, WITHDRAWN, RetryPolicy, answer, record
from gpu_worker.publisher import Publisher
from gpu_worker.reports.worker_report import Report
from wire.clock import ServerClock
from wire.errors import EngineDeadError, EngineUnusableError
from wire.keys import run_member, withdrawn_member
from wire.messages import Answer, Failure, Question

log = logging.getLogger(__name__)


class InFlight:
    """A question's record is written when it finishes, whatever the rest of its batch does.

    A batch ends with its last record.

    Args:
        worker: Name of the worker, for the records.
        report: Shows what happens here.
        left: Called whenever a question leaves the engine.
        engine_died: Called when the engine turns out to be dead or unusable; may be called more than once.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the worker by itself)
        self,
        engine: Engine,
        publisher: Publisher,
        clock: ServerClock,
        patience: RetryPolicy,
        worker: str,
        report: Report,
        *,
        left: Callable[[], None],
        engine_died: Callable[[EngineDeadError | EngineUnusableError], None],
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._worker = worker
        self._patience = patience
        self._tell_left = left
        self._engine_died = engine_died
        self._tasks: dict[HeldBatch, list[asyncio.Task[None]]] = {}
        self._cancelled: frozenset[str] = frozenset()
        self._report = report
        self.questions = 0
        """Questions in the engine now."""

    @property
    def batches(self) -> list[HeldBatch]:
        """Those that this worker holds: their leases are to be renewed."""
        return list(self._tasks)

    def begin(self, batch: HeldBatch) -> None:
        """Put every question of a batch into the engine."""
        tasks = [asyncio.create_task(self._answer(question, size, batch)) for question, size in batch.questions]
        self._tasks[batch] = tasks
        self._report.counts.batches += 1
        self.questions += len(tasks)
        self._report.in_flight = self.questions
        for failure, size in batch.unreadable:
            self._publisher.add(failure, size)
            batch.records.append((failure, size))
            self._report.counts.add(failure)
        for task, (question, size) in zip(tasks, batch.questions, strict=True):
            # Not a `finally` in the coroutine: one that is cancelled before its first step never gets there.
            task.add_done_callback(partial(self._left, question, size, batch))
        if not tasks:
            self._end(batch)

    def lose(self, batch: HeldBatch) -> None:
        """Stop working on a batch whose lease lapsed: it is another worker's now."""
        tasks = self._tasks.pop(batch, None)
        if tasks is None:
            return
        self._report.counts.leases_lost += 1
        words = "the lease of batch %s lapsed; %d of its questions are dropped here"
        log.warning(words, batch.batch_id, batch.unfinished, extra={"batch": batch.batch_id, "worker": self._worker})
        for task in tasks:
            task.cancel()

    def cancel(self, unwanted: frozenset[str]) -> None:
        """Take questions out of the engine, now and from now on; they end as cancelled.

        Args:
            unwanted: Runs, as `run_member` names them, and single questions, as `withdrawn_member` does.
        """
        self._cancelled = unwanted
        if not unwanted:
            return
        for batch, tasks in self._tasks.items():
            for task, (question, _) in zip(tasks, batch.questions, strict=True):
                if self._is_unwanted(question):
                    task.cancel()

    async def abandon(self) -> list[HeldBatch]:
        """Take everything out of the engine; returns the batches that are not finished, for somebody else to answer."""
        held = dict(self._tasks)
        self._tasks.clear()
        await cancel_and_wait([task for tasks in held.values() for task in tasks])
        return list(held)

    async def _answer(self, question: Question, size: int, batch: HeldBatch) -> None:
        if self._is_unwanted(question):
            self._write(self._cancelled_record(question, batch), size, batch)
            return
        counts, began = self._report.counts, time.monotonic()
        counts.wait_s.observe(max(0.0, self._clock.now() - question.submitted_at))
        try:
            made, encoded = await answer(
                question, self._engine, self._clock, self._patience, worker=self._worker, attempts=batch.attempts
            )
        except (EngineDeadError, EngineUnusableError) as error:
            self._engine_died(error)
            return
        counts.engine_s.observe(time.monotonic() - began)
        self._write(made, size, batch, encoded)

    def _left(self, question: Question, size: int, batch: HeldBatch, task: asyncio.Task[None]) -> None:
        self.questions -= 1
        self._report.in_flight = self.questions
        self._tell_left()
        if batch not in self._tasks:
            return
        if task.cancelled():
            if self._is_unwanted(question):
                self._write(self._cancelled_record(question, batch), size, batch)
        elif (error := task.exception()) is not None:
            # A bug of ours. Without a record, its batch would be renewed for ever.
            ids = {"run": question.run, "batch": batch.batch_id, "request": question.request_id, "worker": self._worker}
            log.error(
                "question %s of run %s failed beside the engine",
                question.request_id,
                question.run,
                exc_info=error,
                extra=ids,
            )
            bug = Refusal("internal_error", f"{type(error).__name__}: {str(error)[:500]}")
            self._write(
                record(question, bug, self._engine.model, self._clock, worker=self._worker, attempts=batch.attempts),
                size,
                batch,
            )

    def _write(self, made: Answer | Failure, size: int, batch: HeldBatch, encoded: bytes | None = None) -> None:
        self._publisher.add(made, size, encoded)
        batch.records.append((made, size))
        self._report.counts.add(made)
        if log.isEnabledFor(logging.DEBUG):
            ids = {"run": made.run, "batch": batch.batch_id, "request": made.request_id, "worker": self._worker}
            log.debug("question %s of run %s: %s", made.request_id, made.run, made.status, extra=ids)
        batch.unfinished -= 1
        if batch.unfinished == 0:
            self._end(batch)

    def _end(self, batch: HeldBatch) -> None:
        if self._tasks.pop(batch, None) is not None:
            self._publisher.finish(batch)

    def _is_unwanted(self, question: Question) -> bool:
        # Most of the time there is nothing unwanted at all.
        return bool(self._cancelled) and (
            run_member(question.run, question.epoch) in self._cancelled
            or withdrawn_member(question.run, question.epoch, question.index) in self._cancelled
        )

    def _cancelled_record(self, question: Question, batch: HeldBatch) -> Answer | Failure:
        why = CANCELLED if run_member(question.run, question.epoch) in self._cancelled else WITHDRAWN
        return record(question, why, self._engine.model, self._clock, worker=self._worker, attempts=batch.attempts)
