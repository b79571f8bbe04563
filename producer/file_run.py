"""One run, from a file of questions to a file of answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from producer.answers.answers_file import AnswersFile
from producer.answers.sink import Received
from producer.file_source import FileSource
from producer.options import ProducerOptions
from producer.resume import FileRun, ResumeState
from producer.reuse.identical import IdenticalQuestions
from producer.run_loop import RunLoop
from producer.run_tally import RunTally
from producer.sender_thread import NotFinishedError, RunPlan
from producer.token_budget import TokenBudget
from wire.address import RedisAddress
from wire.errors import FleetError, NewerMessageError, QueueUnavailableError


class RunCancelledError(FleetError):
    """The run was cancelled; accepted questions have their records, the others were never asked."""


class AllFailAlikeError(FleetError):
    """The first questions all failed for the same reason.

    The answers file is as it was; Redis has still to forget the run.
    """


USUAL_TOKENS = 256
BYTES_PER_TOKEN = 4
"""What a question is thought to take before the first one has come."""
OWN_DOING: frozenset[str] = frozenset({"invalid_question", "cancelled", "expired"})
"""Kinds of failure that tell nothing of the questions to come."""


class FileSink:
    """Writes records as lines, and counts them.

    Args:
        stop_when_alike: As in `ProducerOptions`.
    """

    def __init__(
        self, answers: AnswersFile, tally: RunTally, stop_when_alike: int, identical: IdenticalQuestions | None = None
    ) -> None:
        self._answers = answers
        self._tally = tally
        self._identical = identical
        self._stop_when_alike = stop_when_alike
        self._safe = b""
        # An earlier process may have died before its last lines were safe.
        self._is_unsafe = True
        self._is_broken = False

    def put(self, records: Sequence[Received]) -> None:
        """Write their lines.

        Raises:
            OutputFullError: The disk is full, or fails.
            AllFailAlikeError: They, and all before, failed alike.
        """
        self._is_unsafe = self._is_broken = True
        lines = [record for _, record in records]
        if self._identical is not None:
            lines = self._identical.with_shared(lines)
        self._answers.write(lines)
        for record in lines:
            self._tally.count(record)
        self._stop_if_alike()
        self._is_broken = False

    def has_room(self, wait_s: float) -> bool:  # noqa: ARG002 (a disk has, or it fails)
        """Always."""
        return True

    def settle(self, received: bytes) -> bytes:
        """Put on disk what was written.

        Raises:
            OutputFullError: The disk fails, or the file was removed.
        """
        if self._is_broken:
            # What may not be on disk must stay in Redis: another fsync might claim that it is.
            return self._safe
        if self._is_unsafe:
            self._is_broken = True
            self._answers.sync()
            self._is_unsafe = self._is_broken = False
        self._safe = received
        return received

    def finish(self, error: BaseException | None) -> None:
        """Nobody waits for records of a file."""

    def is_settled(self, wait_s: float) -> bool:  # noqa: ARG002 (it is with the next `settle`)
        """Always: what is put is written."""
        return True

    def _stop_if_alike(self) -> None:
        if not self._stop_when_alike or self._tally.done < self._stop_when_alike:
            return
        self._stop_when_alike = 0
        kind, failed = (self._tally.kinds.most_common(1) or [("", 0)])[0]
        if failed == self._tally.done < self._tally.questions and kind not in OWN_DOING:
            request_id, message = self._tally.examples[kind]
            raise AllFailAlikeError(
                f"the first {failed} questions all failed alike, so the others were not asked; {kind}, such as "
                f"{request_id}: {message}"
            )


class Runner:
    """A run from a file of questions to a file of answers.

    Args:
        identical: Questions that take the answers of others.
        observe: Told the run's progress, several times a second.
        check_fleet: Called as often; what it raises ends the run.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the run by itself)
        self,
        what: FileRun,
        stock: ResumeState,
        answers: AnswersFile,
        address: RedisAddress,
        options: ProducerOptions,
        *,
        identical: IdenticalQuestions | None = None,
        observe: Callable[[RunTally], None] = lambda _: None,
        check_fleet: Callable[[], None] = lambda: None,
    ) -> None:
        self.tally = stock.tally
        self._run = what.run
        self._answers = answers
        self._observe = observe
        self._check_fleet = check_fleet
        self._is_stopped = False
        plan = RunPlan(what.run, what.fingerprint, what.checked.count, what.default_model)
        sink = FileSink(answers, stock.tally, options.stop_when_alike, identical)
        self._max_seconds = options.max_seconds
        self._budget = _budget(what, options)
        self._source = FileSource(what, stock, answers.path, identical, self._budget)
        self._loop = RunLoop(address, options, plan, self._source, sink, self._look_around)

    def stop(self) -> None:
        """Stop submitting and collecting; `run` then raises NotFinishedError. May be called by a signal handler."""
        self._is_stopped = True

    def run(self) -> RunTally:
        """Go on until every question has its line.

        Raises:
            NotFinishedError: Stopped before, or Redis was away for too long.
            AllFailAlikeError: The first questions all failed for the same reason.
            RunCancelledError: Somebody cancelled it.
            StuckError: Nothing more can come.
            UsageError: The answers file, the run in Redis and the questions do not belong together, or the disk is
                full.
            LeaseLostError: Another producer has taken the run over.
        """
        if self.tally.on_disk < self.tally.questions:
            try:
                self._ask()
            except Exception as error:
                self._answers.conclude(is_complete=isinstance(error, RunCancelledError))
                raise
        else:
            # Whoever wrote the last line may have died before telling Redis.
            self._loop.forget_delivered()
        self._answers.conclude(is_complete=True)
        self.tally.ended = time.monotonic()
        self._observe(self.tally)
        return self.tally

    def _ask(self) -> None:
        tally = self.tally
        tally.started = time.monotonic()
        began = self._answers.size()
        try:
            try:
                self._loop.open()
            except BaseException:
                self._loop.leave()
                raise
            self._loop.serve()
        except AllFailAlikeError:
            # Lines that say nothing but that would be in the way of the corrected questions.
            self._answers.cut(began)
            tally.take_back()
            raise
        except QueueUnavailableError as error:
            raise NotFinishedError(f"{error}; the same command resumes the run") from error
        except NewerMessageError as error:
            raise NotFinishedError(f"{error}; the same command of the newer version resumes the run") from error
        if tally.on_disk < tally.questions:
            lines = f"{tally.on_disk} of {tally.questions} questions have a line"
            raise RunCancelledError(
                f"run {self._run} was cancelled; {lines}. To ask the rest, choose another --run and -o"
            )

    def _look_around(self) -> None:
        """Called by the thread that started the fleet's processes, which alone may look after them."""
        try:
            self._check_fleet()
        except FleetError:
            # A private queue ends with its fleet: take what is answered already.
            self._loop.drain()
            raise
        if self._is_stopped:
            raise NotFinishedError(
                f"stopped with {self.tally.questions - self.tally.on_disk} of {self.tally.questions} questions open"
            )
        if self._max_seconds and time.monotonic() - self.tally.started >= self._max_seconds:
            raise NotFinishedError(f"the {self._max_seconds:g} s of --max-seconds are over")
        if self._budget is not None and self._source.is_at_ceiling:
            spent = self._budget.spent(self.tally)
            raise NotFinishedError(
                f"{spent} of the {self._budget.most} tokens of --max-tokens-total are used; no further question fits"
            )
        self.tally.waiting_for = self._loop.waiting_for
        self._observe(self.tally)


def _budget(what: FileRun, options: ProducerOptions) -> TokenBudget | None:
    if not options.max_tokens_total:
        return None
    longest = options.sampling.get("max_tokens")
    written = longest if isinstance(longest, int) else USUAL_TOKENS
    read = what.checked.total_bytes / max(1, what.checked.rows) / BYTES_PER_TOKEN
    return TokenBudget(options.max_tokens_total, read + written)
