"""A run as this process holds it: what blocking and asyncio handles have in common."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from batchfleet.client.outbox import Outbox
from batchfleet.client.question_numbers import QuestionNumbers
from batchfleet.client.questions import QuestionLike
from batchfleet.client.run_status import RunStatus, read_fingerprint
from batchfleet.client.session import STREAM, Session, checked_run_id, new_run_id
from producer.bounded_queue import BoundedQueue
from producer.questions.samples import MOST_SAMPLES, Samples
from producer.sender import CHUNK_QUESTIONS
from producer.stream_run import StreamRun
from producer.stream_source import PendingQuestion
from wire.connection import connect
from wire.errors import QueueUnavailableError, UsageError
from wire.redis_errors import translated

STANDSTILL_S = 2.0


class LiveRun:
    """One run and, from when its records are wanted, the threads that serve it.

    Args:
        session: Of the client.
        run: Its id.
        on_change: Called, by another thread, whenever there is a new result or the end.
    """

    def __init__(self, session: Session, run: str, on_change: Callable[[], None] = lambda: None) -> None:
        self.id = run
        self.outbox = Outbox(on_change)
        self._session = session
        self._stream: StreamRun | None = None
        self._lock = threading.Lock()
        self._stood: tuple[int, float] | None = None
        self._away_since = 0.0

    def begin(
        self,
        params: Mapping[str, Any],
        window: int | None,
        samples: int = 0,
        on_taken: Callable[[], None] = lambda: None,
    ) -> tuple[BoundedQueue[PendingQuestion], QuestionNumbers]:
        """Open the run for questions; they are numbered by the one and put into the other.

        Raises:
            RunBusyError: Another living process collects it.
            UsageError: It exists, and was made of something else.
            QueueUnavailableError: Redis does not answer.
        """
        session = self._session
        if window is not None and window < 1:
            raise ValueError(f"window is {window}; it must be 1 or more")
        if not 0 <= samples <= MOST_SAMPLES:
            raise ValueError(f"samples is {samples}; it must be 0 to {MOST_SAMPLES}")
        inbox: BoundedQueue[PendingQuestion] = BoundedQueue(min(CHUNK_QUESTIONS, window or CHUNK_QUESTIONS), on_taken)
        stream, state = session.stream(self.id, inbox, self.outbox, window)
        numbering = QuestionNumbers(
            session,
            self.id,
            {**session.sampling, **params},
            samples=Samples(samples),
            resume_at=state.cursor,
            mark=state.mark,
        )
        stream.start()
        self._stream = stream
        return inbox, numbering

    def collect(self) -> None:
        """Have the records of a run that an earlier process made come here. Does nothing if they do already.

        Raises:
            RunBusyError: Another living process collects it.
            UsageError: There is no such run, or its records go to a file.
        """
        session = self._session
        with self._lock:
            if self._stream is not None:
                return
            with translated(session.address), connect(session.address) as client:
                fingerprint = read_fingerprint(client, session.keys, self.id)
            if fingerprint.get("questions") != STREAM:
                raise UsageError(
                    f"the answers of run {self.id} go to a file, with `batchfleet submit` or `run`; the same command "
                    "resumes it"
                )
            stream, _ = session.stream(self.id, None, self.outbox)
            stream.start()
            self._stream = stream

    def status(self) -> RunStatus:
        found = self._session.run_status(self.id)
        return replace(found, waiting_for=self._stream.waiting_for) if self._stream is not None else found

    def is_over(self) -> bool:
        """Whether every question has its record.

        A Redis that is away is waited for, as everywhere, up to `redis.patience_s`: not yet.

        Raises:
            UsageError: It waits for this process to take its results.
            QueueUnavailableError: Redis did not answer for too long.
            BaseException: Whatever ended it early.
        """
        stream = self._stream
        if stream is not None and not stream.is_live and not self.outbox.has_ended_well:
            self.outbox.raise_error()
        try:
            status = self.status()
        except QueueUnavailableError:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if now - self._away_since > self._session.settings.redis.patience_s:
                raise
            return False
        self._away_since = 0.0
        if stream is not None and stream.no_room and not status.open and self._stands_still(status):
            waiting = status.accepted - status.delivered
            raise UsageError(
                f"run {self.id} has {waiting} results waiting, as many as its window; take them with results(), or "
                "give a larger window="
            )
        return status.is_done

    def _stands_still(self, status: RunStatus) -> bool:
        """Whether nothing was taken for a while: somebody else may be taking results beside the one who waits."""
        now = time.monotonic()
        if self._stood is None or self._stood[0] != status.delivered:
            self._stood = (status.delivered, now)
        return now - self._stood[1] > STANDSTILL_S

    def fail(self, error: BaseException) -> None:
        if self._stream is not None:
            self._stream.fail(error)

    def cancel(self) -> RunStatus:
        return self._session.cancel(self.id)

    def leave(self) -> None:
        """Serve it no more."""
        with self._lock:
            if self._stream is not None:
                self._session.leave_stream(self._stream)


def feed(
    questions: Iterable[QuestionLike], live: LiveRun, inbox: BoundedQueue[PendingQuestion], numbering: QuestionNumbers
) -> threading.Thread:
    """Put questions into a run as there is room, in a thread of its own.

    They may take their time, or wait for answers of their own.
    """

    def work() -> None:
        try:
            for question in questions:
                if not all(map(inbox.put, numbering.give(question))):
                    return
            numbering.end()
        except BaseException as error:  # noqa: BLE001 (whoever takes the results gets it)
            live.fail(error)
        else:
            inbox.finish()

    thread = threading.Thread(target=work, name=f"batchfleet questions of {live.id}", daemon=True)
    thread.start()
    return thread


def generate_id(run: str | None) -> str:
    """The id of a new run: the caller's, checked, or one of its own."""
    return checked_run_id(run) if run is not None else new_run_id("py-")


def check_many(questions: object) -> None:
    """Refuse what is one question and not many.

    Raises:
        TypeError: A str or dict, whose parts would be asked one by one; or nothing to go through.
    """
    if isinstance(questions, str | bytes | Mapping):
        raise TypeError(f"a {type(questions).__name__} is one question; use ask(), or give a list of them")
    if not isinstance(questions, Iterable | AsyncIterable):
        raise TypeError(f"questions must be an iterable, such as a list or a generator, not {type(questions).__name__}")
