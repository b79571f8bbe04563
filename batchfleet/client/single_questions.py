"""Single questions, as many at once as a program likes: they share a run, and so travel together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from batchfleet.client.outbox import Result, Waiters
from batchfleet.client.questions import QuestionLike, as_asked, names_model
from batchfleet.client.session import ASK_PREFIX, Session, new_run_id
from producer.bounded_queue import BoundedQueue
from producer.questions.question_parser import ParsedQuestion
from producer.stream_source import PendingQuestion
from wire.errors import FleetError

MOST_IN_A_RUN = 100_000
"""Then another run is begun: a run's ledger grows by two bits a question, and lives while questions are added."""


class SingleQuestions:
    """The single questions of one client."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._preparing = threading.Lock()
        self._current: _AskRun | None = None
        self._earlier: list[_AskRun] = []

    @property
    def is_ready(self) -> bool:
        """Whether there is a run that takes questions."""
        return self._current is not None and self._current.has_room

    @property
    def waiting_for(self) -> str:
        """Why questions are not being accepted now, in words; empty if they are."""
        run = self._current
        return "" if run is None else run.waiting_for

    def prepare(self) -> None:
        """Open a run for the next questions.

        Raises:
            FleetError: Redis does not answer, or refuses; or the client is closed.
        """
        with self._preparing:
            if self.is_ready:
                return
            opened = _AskRun(self._session, MOST_IN_A_RUN)
            with self._lock:
                if self._current is not None:
                    self._current.finish()
                    self._earlier = [run for run in [*self._earlier, self._current] if run.waits]
                self._current = opened

    def ask(self, question: QuestionLike, params: Mapping[str, Any]) -> Result:
        """Ask one question. Cancelling the future withdraws it.

        Raises:
            TypeError: It is nothing that can be asked.
            UsageError: Nothing says which model it is for.
        """
        self._session.ensure_open()
        model = self._session.model or ("" if names_model(question) else self._session.find_model())
        while True:
            if not self.is_ready:
                self.prepare()
            with self._lock:
                run = self._current
                asked = run.ask(question, params, model) if run is not None else None
            if asked is not None:
                return asked

    def close(self) -> None:
        """End it all: nobody could take the answers of what is open any more."""
        with self._lock:
            runs = [run for run in [*self._earlier, self._current] if run is not None]
            self._current, self._earlier = None, []
        for run in runs:
            run.close()


class _AskRun:
    """One run of single questions."""

    def __init__(self, session: Session, most: int) -> None:
        self._session = session
        self._left = most
        self._next = 0
        self._waiters = Waiters()
        # No bound: whoever asks waits for the answer anyway, and holds the question meanwhile.
        self._inbox: BoundedQueue[PendingQuestion] = BoundedQueue(None)
        self._stream, _ = session.stream(new_run_id(ASK_PREFIX), self._inbox, self._waiters)
        self._stream.start()

    @property
    def has_room(self) -> bool:
        return self._left > 0 and not self._waiters.is_finished

    @property
    def waiting_for(self) -> str:
        return self._stream.waiting_for

    @property
    def waits(self) -> bool:
        """Whether anybody waits for an answer of this run."""
        return self._waiters.count > 0

    def ask(self, question: QuestionLike, params: Mapping[str, Any], model: str) -> Result | None:
        """Ask one question; None if this run takes no more. Called by one thread at a time."""
        if not self.has_room:
            return None
        index = self._next
        asked = as_asked(question, index, params, self._session.max_question_bytes)
        if isinstance(asked, ParsedQuestion) and not asked.model:
            asked = replace(asked, model=model)
        future = self._waiters.add(index)
        if future is None:
            return None
        future.add_done_callback(partial(self._forget, index))
        self._inbox.offer(PendingQuestion(asked))
        self._next += 1
        self._left -= 1
        return future

    def finish(self) -> None:
        """No more questions come."""
        self._left = 0
        self._inbox.finish()

    def close(self) -> None:
        """Leave; what is open is cancelled in the fleet too."""
        abandoned = self.waits
        self._session.leave_stream(self._stream)
        if abandoned:
            # A Redis that is away keeps the questions; they are answered for nobody, and end with their run.
            with contextlib.suppress(FleetError):
                self._session.cancel(self._stream.plan.run)

    def _forget(self, index: int, future: Result) -> None:
        if future.cancelled():
            self._waiters.drop(index)
            self._stream.withdraw(index)
