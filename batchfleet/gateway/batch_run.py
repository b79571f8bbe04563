"""One batch, from its check to its files. It is a run of the same id: `status`, `verify` and `cancel` see it.

Whatever dies in the middle, the next process that takes the batch up goes on where this one was: what a batch has come
to is in its row, its journal and the run's ledger.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from batchfleet.gateway.batch_file import BatchFile, FileProblem, check_batch_file, source_of
from batchfleet.gateway.batch_output import BatchFacts, unasked_ids, write_results
from batchfleet.gateway.batch_queue import cancel_in_queue, forget_in_queue, was_cancelled_in_queue
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.store import Store, new_id, now
from batchfleet.status.served import served_models
from producer.answers.answers_file import AnswersFile, OutputFullError
from producer.file_run import RunCancelledError, Runner
from producer.options import ProducerOptions, ReadingLimits
from producer.resume import FileRun, ResumeState, take_stock
from producer.run_loop import StuckError
from producer.run_tally import RunTally
from producer.sender_thread import NotFinishedError
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.errors import FleetError, UsageError

log = logging.getLogger(__name__)

COUNT_EVERY_S = 0.5
"""How often a batch's row hears of its counts, and we of its cancellation."""
LAST_RECORDS_S = 20.0
"""How long the records of what was cancelled are waited for. A fleet without a batcher never writes them."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
MOST_FORGETS = 3
"""So often a run is begun anew whose questions are gone from Redis."""


OPEN_STATUSES = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


class StopError(Exception):
    """This process is to end; the batch goes on in another."""


class _CancelledError(Exception):
    """Somebody cancelled it while its file was checked."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What all batches of a process have in common."""

    store: Store
    batches: BatchTable
    address: RedisAddress
    options: ProducerOptions
    reading: ReadingLimits
    stopping: threading.Event
    scaled_models: Collection[str] = ()


class BatchRun:
    """Takes one batch to its end."""

    def __init__(self, context: BatchContext, batch_id: str) -> None:
        self._context = context
        self._id = batch_id
        self._runner: Runner | None = None
        self._looked_at = 0.0
        self._counts = (-1, -1)
        self._told_fleet = False
        self._give_up_at = float("inf")
        self._forgets = 0
        self._found: BatchFile | None = None

    def _row(self) -> sqlite3.Row:
        row = self._context.batches.row(self._id)
        if row is None:
            # Nobody deletes one that has no end.
            raise LookupError(f"batch {self._id} is not in the database any more")
        return row

    def run(self) -> None:
        """Go on until the batch has its end.

        Raises:
            StopError: This process is to end.
        """
        pause = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while self._row()["status"] in OPEN_STATUSES:
            try:
                self._go_on()
            except _CancelledError:
                continue
            except (FleetError, OSError) as error:
                if isinstance(error, UsageError) and not isinstance(error, OutputFullError):
                    # The journal, the file and the run in Redis do not belong together: for a person.
                    log.error("batch %s failed: %s", self._id, error, extra={"run": self._id})  # noqa: TRY400 (ours)
                    self._context.batches.refuse(self._id, [FileProblem("internal_error", str(error))])
                else:
                    log.warning("batch %s waits: %s", self._id, error, extra={"run": self._id})
                    self._pause(pause.next_s())

    def _go_on(self) -> None:
        row = self._row()
        if row["status"] == "cancelling" and row["in_progress_at"] is None:
            self._context.batches.end(self._id, "cancelled", (0, 0), None, None)
            return
        path = self._context.store.content(row["input_file_id"])
        if self._found is None:
            self._found = check_batch_file(path, row["endpoint"], self._context.reading, self._check_validating)
        found = self._found
        if problems := self._problems(found):
            self._context.batches.refuse(self._id, problems)
            return
        assert found.checked is not None  # noqa: S101 (there is no problem)
        self._context.batches.begin(self._id, found.model, found.checked.count)
        fingerprint = {"questions": found.checked.fingerprint, "count": str(found.checked.count), "model": found.model}
        what = FileRun(self._id, source_of(path), found.checked, self._context.reading, found.model, fingerprint)
        with AnswersFile(self._context.store.journal(self._id), follows_link=False) as answers:
            state = take_stock(what, answers)
            if not state.is_complete:
                self._ask(what, state, answers)
            self._finish(what, state, answers)

    def _problems(self, found: BatchFile) -> list[FileProblem]:
        problems = list(found.problems)
        if problems or self._row()["in_progress_at"] is not None:
            return problems
        served = sorted({*served_models(self._context.address), *self._context.scaled_models})
        # A fleet without a worker may be about to get one; one with others has been asked for what it does not have.
        if served and found.model not in served:
            words = f"No worker serves the model {found.model[:100]!r}; they serve {', '.join(served[:10])}."
            problems.append(FileProblem("model_not_found", words, 1, "body.model"))
        return problems

    def _ask(self, what: FileRun, state: ResumeState, answers: AnswersFile) -> None:
        self._told_fleet, self._give_up_at = False, float("inf")
        runner = self._runner = Runner(
            what, state, answers, self._context.address, self._context.options, observe=self._observe
        )
        try:
            runner.run()
        except RunCancelledError:
            pass
        except NotFinishedError:
            self._check_stopping()
            if time.monotonic() < self._give_up_at:
                raise
        except StuckError:
            if self._why_ends() is None:
                self._begin_anew()
        finally:
            self._runner = None

    def _observe(self, tally: RunTally) -> None:
        """Called several times a second, by the thread of the run."""
        if self._context.stopping.is_set() or time.monotonic() >= self._give_up_at:
            assert self._runner is not None  # noqa: S101 (it is what calls us)
            self._runner.stop()
            return
        if time.monotonic() < self._looked_at + COUNT_EVERY_S:
            return
        self._looked_at = time.monotonic()
        if (tally.answered, tally.failed) != self._counts:
            self._counts = tally.answered, tally.failed
            self._context.batches.count(self._id, *self._counts)
        if self._why_ends() is None:
            return
        self._give_up_at = min(self._give_up_at, time.monotonic() + LAST_RECORDS_S)
        if not self._told_fleet:
            context = self._context
            self._told_fleet = cancel_in_queue(context.address, self._id, context.options.run_ttl_s)

    def _why_ends(self) -> str | None:
        """Whether the batch is to end before all is answered: `cancelled` or `expired`, else None."""
        row = self._row()
        if row["status"] == "cancelling":
            return "cancelled"
        return "expired" if row["expires_at"] <= now() else None

    def _begin_anew(self) -> None:
        """The questions that are open are gone from Redis: ask them again under the same id, a few times at most."""
        self._forgets += 1
        if self._forgets > MOST_FORGETS:
            raise UsageError(f"its requests vanish from the queue; `batchfleet dead list` may say why (run {self._id})")
        forget_in_queue(self._context.address, self._id)
        raise NotFinishedError(f"the queue has lost requests of run {self._id}; they are asked again")

    def _finish(self, what: FileRun, state: ResumeState, answers: AnswersFile) -> None:
        batches, store = self._context.batches, self._context.store
        batches.finalize(self._id)
        is_whole = state.tally.on_disk == state.tally.questions
        ends = self._why_ends()
        if ends is None and (not is_whole or was_cancelled_in_queue(self._context.address, self._id)):
            ends = "cancelled"
        if ends == "expired" and is_whole and not self._told_fleet:
            # It was all there in time, and only this process was late.
            ends = None
        row = self._row()
        facts = BatchFacts(row["endpoint"], row["in_progress_at"], ends or "cancelled")
        errors_id = new_id("file-")
        to = store.content(row["output_file_id"]), store.content(errors_id)
        result = write_results(answers.path, to, facts, unasked_ids(what, state), self._check_stopping)
        found_id = errors_id if to[1].exists() else None
        batches.end(self._id, ends or "completed", (result.completed, result.failed), result.usage, found_id)
        store.remove_journal(self._id)

    def _check_validating(self, _lines: int) -> None:
        self._check_stopping()
        if time.monotonic() < self._looked_at + COUNT_EVERY_S:
            return
        self._looked_at = time.monotonic()
        if self._row()["in_progress_at"] is None and self._why_ends() == "cancelled":
            raise _CancelledError

    def _check_stopping(self) -> None:
        if self._context.stopping.is_set():
            raise StopError

    def _pause(self, seconds: float) -> None:
        if self._context.stopping.wait(seconds):
            raise StopError
