"""One run, from a file of questions to a file of answers."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

import redis

from producer.answers.answers_file import AnswersFile, OutputFullError
from producer.collector import Collector
from producer.locate import whereabouts
from producer.options import ProducerOptions
from producer.questions.duplicates import count_before, is_set
from producer.questions.parser import Invalid, ParsedQuestion, size_of
from producer.questions.question_file import read_checked
from producer.resume import FileRun, ResumeState, RunTally
from producer.sender import CHUNK_BYTES, CHUNK_QUESTIONS, RunBusyError, Sender
from wire.connection import RedisAddress, connect, translated
from wire.errors import FleetError, LeaseLostError, NewerMessageError, QueueUnavailableError, UsageError
from wire.keys import Keys
from wire.messages import Answer, Failure

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How long records are waited for at most before the loop looks around, and also what a fleet without room is given."""
FIRST_PAUSE_S = 0.02
SETTLE_S = 0.25
SETTLE_RECORDS = 4000
"""Records are put safely on disk and acknowledged this often; before that, a crash of the machine costs nothing but sending them again."""
LONGEST_BACKOFF_S = 2.0
LAST_SETTLE_S = 5.0
CHECK_S = 2.0
BUSY_RETRY_S = 0.5
QUIET_S = 10.0
"""After so long without a record, and with nothing to send, it is asked where the open questions are."""


class NotFinishedError(FleetError):
    """The run stopped before every question had its record; the same command continues it."""


class StuckError(FleetError):
    """Nothing can come any more of the questions that are open: they are gone from Redis, or among the dead letters."""


class RunCancelledError(FleetError):
    """Somebody cancelled the run; every question that was accepted has its record, the others were never asked."""


class AllFailAlikeError(FleetError):
    """The first questions all failed for the same reason. The answers file is as it was; Redis has still to forget the run."""


OWN_DOING: frozenset[str] = frozenset({"invalid_question", "cancelled", "expired"})
"""Kinds of failure that tell nothing of the questions to come."""


class Runner:
    """Submits and collects in one loop, in one thread: what comes back makes room for what goes out."""

    def __init__(
        self,
        what: FileRun,
        stock: ResumeState,
        answers: AnswersFile,
        address: RedisAddress,
        options: ProducerOptions,
        *,
        observe: Callable[[RunTally], None] = lambda _: None,
        check_fleet: Callable[[], None] = lambda: None,
    ) -> None:
        self._what = what
        self._answers = answers
        self._address = address
        self._options = options
        self._observe = observe
        self._check_fleet = check_fleet
        self._stopping = threading.Event()
        self._client = connect(address)
        self._keys = keys = Keys(address.namespace)
        self._sender = Sender(self._client, keys, what.run, what.fingerprint, what.checked.count, options)
        self._collector = Collector(self._client, keys, what.run, self._sender, options)
        self._written = stock.written
        self._chunks: Iterator[tuple[int, list[ParsedQuestion | Invalid]]] | None = None
        self._chunk: tuple[int, list[ParsedQuestion | Invalid]] | None = None
        self._no_room = ""
        self._offer_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._unsettled = 0
        self._settle_at = 0.0
        self._check_at = 0.0
        self._quiet_since = 0.0
        self._looked_stuck = False
        self._looks_for_alike = options.stop_when_alike > 0
        self.tally = stock.tally

    def stop(self) -> None:
        """Stop submitting and collecting; `run` then raises NotFinishedError."""
        self._stopping.set()

    def run(self) -> RunTally:
        """Go on until every question has its line.

        Raises:
            NotFinishedError: Stopped before.
            AllFailAlikeError: The first questions all failed for the same reason.
            UsageError: The answers file, the run in Redis and the questions do not belong together, or the disk is full.
            LeaseLostError: Another producer has taken the run over.
        """
        if self.tally.on_disk < self.tally.questions:
            began = self._answers.size()
            try:
                self._until_done()
            except AllFailAlikeError:
                # Lines that say nothing but that would be in the way of the corrected questions.
                self._answers.cut(began)
                self.tally.take_back()
                raise
            except OutputFullError:
                # What may not be on disk must stay in Redis: another fsync might claim that it is.
                self._collector.restart()
                self._unsettled = 0
                raise
            finally:
                self._leave()
        else:
            self._forget_delivered()
        self.tally.ended = time.monotonic()
        self._observe(self.tally)
        return self.tally

    def _until_done(self) -> None:
        backoff_s, away_since, is_open = 0.1, 0.0, False
        self.tally.started = time.monotonic()
        busy_until = time.monotonic() + self._options.lease_s + 1
        while self.tally.on_disk < self.tally.questions:
            try:
                self._check_fleet()
            except FleetError:
                self._collect_the_rest()
                raise
            if self._stopping.is_set():
                msg = (
                    f"stopped with {self.tally.questions - self.tally.on_disk} of {self.tally.questions} questions open"
                )
                raise NotFinishedError(msg)
            try:
                with translated(self._address):
                    if not is_open:
                        self._open()
                        is_open = True
                    is_open = self._turn()
                backoff_s, away_since = 0.1, 0.0
            except RunBusyError as error:
                # Its holder may have died on another machine a moment ago; then its lease lapses.
                if time.monotonic() > busy_until or not self._options.wait_for_room:
                    raise
                self.tally.waiting_for = str(error)
                self._observe(self.tally)
                self._stopping.wait(BUSY_RETRY_S)
            except NewerMessageError as error:
                msg = f"{error}; the same command of the newer version continues the run"
                raise NotFinishedError(msg) from error
            except QueueUnavailableError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self._options.patience_s:
                    msg = f"{error}, for {self._options.patience_s:.0f} s; the same command resumes the run"
                    raise NotFinishedError(msg) from error
                self.tally.waiting_for = str(error)
                self._observe(self.tally)
                # What was sent may have been accepted without our hearing of it: ask again.
                is_open = False
                self._stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        self._settle_at_last()

    def _turn(self) -> bool:
        """Submit a little, collect what is there. Returns False if the run must be opened again."""
        outcome = self._submit()
        records = self._collector.receive(0.0 if outcome == "ok" else LOOK_S)
        self._write(records)
        if time.monotonic() >= self._settle_at or self._unsettled >= SETTLE_RECORDS:
            self._settle()
        if records or outcome == "ok":
            self._quiet_since, self._looked_stuck = time.monotonic(), False
        elif outcome in {"all sent", "cancelled", "window"} and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_S
            if not self._is_still_there():
                return False
            self._check_stuck()
        self._observe(self.tally)
        return outcome not in {"cursor", "gone"}

    def _collect_the_rest(self) -> None:
        """What is answered already; a private queue is about to end with its fleet."""
        with contextlib.suppress(QueueUnavailableError, LeaseLostError, redis.RedisError), translated(self._address):
            while records := self._collector.receive(0.0):
                self._write(records)

    def _open(self) -> None:
        state = self._sender.open()
        if state.acknowledged > self.tally.on_disk:
            self._complain_of_missing_lines(state.acknowledged)
        self._collector.restart()
        self._quiet_since, self._looked_stuck = time.monotonic(), False
        self._go_by(state.cursor)

    def _go_by(self, cursor: int) -> None:
        """Believe Redis' cursor. The file is read anew only if it went elsewhere: to get to the end of a large one takes minutes."""
        if self._chunk is not None and cursor == self._chunk[0]:
            # It was accepted without our hearing of it.
            self._chunk = None
        elif self._chunks is None or cursor != self.tally.sent:
            self._chunks, self._chunk = self._chunks_from(cursor), None
        self._offer_at = 0.0
        self.tally.sent = cursor
        self.tally.settled = count_before(self._written, cursor)

    def _submit(self) -> str:
        if self._chunk is None and self._chunks is not None:
            self._chunk = next(self._chunks, None)
        if self._chunk is None:
            self.tally.waiting_for = ""
            return "all sent"
        if time.monotonic() < self._offer_at:
            return self._no_room
        until, questions = self._chunk
        sent = self._sender.send(self.tally.sent, until, questions, self._what.default_model)
        if sent.outcome in {"pending", "share"} and not self._options.wait_for_room:
            msg = f"the fleet has no room for more: {sent.detail}. Without --no-wait the command waits for it"
            raise NotFinishedError(msg)
        # A full window is how every long run goes, and nothing to tell.
        self.tally.waiting_for = "" if sent.outcome == "window" else sent.detail
        self._offer_later(sent.outcome)
        if sent.outcome == "ok":
            self.tally.settled += until - self.tally.sent - len(questions)
            self.tally.sent = until
            self._chunk = None
        return sent.outcome

    def _offer_later(self, outcome: str) -> None:
        """Not with every record that comes: a chunk is a megabyte that is packed and sent to be refused."""
        self._no_room = outcome
        if outcome == "window":
            # Only what we acknowledge makes room there.
            self._offer_at = math.inf
        elif outcome in {"pending", "share"}:
            self._offer_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LOOK_S)
        else:
            self._pause_s = FIRST_PAUSE_S

    def _chunks_from(self, cursor: int) -> Iterator[tuple[int, list[ParsedQuestion | Invalid]]]:
        """Questions from `cursor` on that have no line yet, a chunk at a time, each with the position after it."""
        if cursor >= self._what.checked.count:
            return
        questions = read_checked(self._what.questions, self._what.reading, self._what.checked)
        chunk: list[ParsedQuestion | Invalid] = []
        size = 0
        # A chunk that exceeds the window by itself would wait for ever, and one of most of the fleet's room for the moment when nobody else asks.
        most = min(CHUNK_QUESTIONS, self._options.run_window, -(-self._options.max_pending_questions // 8))
        for question in itertools.islice(questions, cursor, None):
            if not is_set(self._written, question.index):
                chunk.append(question)
                size += size_of(question)
            if len(chunk) >= most or size >= CHUNK_BYTES:
                yield question.index + 1, chunk
                chunk, size = [], 0
                cursor = question.index + 1
        if cursor < self._what.checked.count:
            yield self._what.checked.count, chunk

    def _write(self, records: list[Answer | Failure]) -> None:
        new = []
        for record in records:
            # Sent again after a crash, or after Redis came back without its last second: the line is there already.
            if record.index < self.tally.questions and not is_set(self._written, record.index):
                self._written[record.index >> 3] |= 0x80 >> (record.index & 7)
                new.append(record)
        if new:
            self._answers.write(new)
            for record in new:
                self.tally.count(record)
            self._stop_if_alike()
        self._collector.written()
        self._unsettled += len(records)

    def _stop_if_alike(self) -> None:
        if not self._looks_for_alike or self.tally.done < self._options.stop_when_alike:
            return
        self._looks_for_alike = False
        kind, failed = (self.tally.kinds.most_common(1) or [("", 0)])[0]
        if failed == self.tally.done < self.tally.questions and kind not in OWN_DOING:
            request_id, message = self.tally.examples[kind]
            msg = f"the first {failed} questions all failed alike, so the others were not asked; {kind}, such as {request_id}: {message}"
            raise AllFailAlikeError(msg)

    def _settle(self) -> None:
        if self._unsettled:
            self._answers.sync()
        self._collector.acknowledge()
        if self._unsettled and self._no_room == "window":
            self._offer_at = 0.0
        self._unsettled = 0
        self._settle_at = time.monotonic() + SETTLE_S

    def _settle_at_last(self) -> None:
        """The file is complete. That Redis may forget its records is worth a few more tries, and not the run: their time ends, too."""
        until, backoff_s = time.monotonic() + LAST_SETTLE_S, 0.1
        while True:
            try:
                with translated(self._address):
                    self._settle()
            except (QueueUnavailableError, LeaseLostError) as error:
                if time.monotonic() > until or self._stopping.is_set() or isinstance(error, LeaseLostError):
                    log.warning(
                        "%s; all answers are on disk, and Redis keeps its copy until the run's time is over", error
                    )
                    return
                self._stopping.wait(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            else:
                return

    def _forget_delivered(self) -> None:
        """Whoever wrote the last line may have died before telling Redis, where its records would wait for nobody until their time is over."""
        with contextlib.suppress(FleetError, redis.RedisError), translated(self._address):
            if self._client.exists(Keys(self._address.namespace).records(self._what.run)):
                self._answers.sync()
                self._sender.open()
                while self._collector.receive(0.0):
                    self._collector.written()
                self._collector.acknowledge()
                self._collector.release()
        self._client.close()

    def _is_still_there(self) -> bool:
        """Whether Redis has the run as we know it; waiting for records that were delivered long ago would never end."""
        state = self._sender.open()
        if state.cursor < self.tally.sent:
            return False
        if state.cancelled and state.acknowledged >= state.accepted:
            lines = f"{self.tally.on_disk} of {self.tally.questions} questions have a line"
            msg = f"run {self._what.run} was cancelled; {lines}. To ask the rest, choose another --run and -o"
            raise RunCancelledError(msg)
        if state.acknowledged >= state.accepted and self.tally.sent >= self.tally.questions:
            self._complain_of_missing_lines(state.acknowledged)
        return True

    def _check_stuck(self) -> None:
        if time.monotonic() - self._quiet_since < QUIET_S:
            return
        found = whereabouts(self._client, self._keys, self._what.run, self._sender.epoch)
        if not found.is_stuck:
            self._quiet_since, self._looked_stuck = time.monotonic(), False
        elif not self._looked_stuck:
            self._looked_stuck = True
        else:
            open_ones = self.tally.questions - self.tally.on_disk
            what = "no record" if found.unanswered else "a record that somebody took out of Redis"
            msg = (
                f"{open_ones} questions of run {self._what.run} have {what}, and are not queued, in a batch or with a worker any more. "
                f"`batchfleet dead list` may say why; `batchfleet forget {self._what.run}`, then the same command, asks them again"
            )
            raise StuckError(msg)

    def _complain_of_missing_lines(self, delivered: int) -> None:
        msg = (
            f"{delivered} records of run {self._what.run} were delivered before, but {self._answers.path} has only {self.tally.on_disk} lines. "
            "Give the file that has them, or another --run to ask everything again"
        )
        raise UsageError(msg)

    def _leave(self) -> None:
        # Whatever happened is more telling than that its aftermath failed too.
        with contextlib.suppress(FleetError, redis.RedisError), translated(self._address):
            self._settle()
            self._collector.release()
        self._client.close()
