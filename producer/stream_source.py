"""The questions of a run, from submission to their records.

This includes the questions of a run that a program makes while it goes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from producer.bounded_queue import BoundedQueue
from producer.questions.question_parser import Invalid, ParsedQuestion, size_of
from producer.sender import RunState
from wire.errors import FleetError
from wire.messages import Answer, Failure

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Questions that are sent together: those of the positions `start` to `until` (exclusive) that have no record yet.

    Attributes:
        mark: As in `PendingQuestion`, of the last one.
    """

    start: int
    until: int
    questions: Sequence[ParsedQuestion | Invalid]
    mark: str = ""

    def part(self, position: int, most: int) -> Chunk:
        """Its first `most` questions from `position` on. Of a chunk whose questions have no marks of their own."""
        questions = [question for question in self.questions if question.index >= position]
        until = self.until if len(questions) <= most else questions[most].index
        return Chunk(position, until, questions[:most], self.mark)


class QuestionSource(Protocol):
    """Where the questions of a run come from. Called by the thread that sends and by the one that receives.

    Attributes:
        position: Redis' cursor, as far as we know: the next question to be accepted.
        how_to_ask_again: What the user can do should Redis have lost questions, in words.
    """

    position: int
    how_to_ask_again: str

    def begin(self, state: RunState) -> None:
        """Read the state of the run, before anything is sent.

        Raises:
            FleetError: It cannot be resumed from here.
        """

    def believe(self, state: RunState) -> None:
        """Follow Redis' cursor, wherever it is now.

        Raises:
            FleetError: What would have to be asked again is not ours.
        """

    def chunk(self, most: int, most_bytes: int, wait_s: float) -> Chunk | None:
        """The next questions; the same ones until `move_to`, or fewer of them if `most` is less than before.

        Waits up to `wait_s` seconds for the first; None if there are none now.
        """

    def move_to(self, position: int) -> None:
        """Everything before this position is accepted."""

    def end(self, record: Answer | Failure) -> bool:
        """A record has come; returns whether it is the first one of a question of ours."""

    def drop_waiting(self) -> None:
        """Give up what was not accepted: the run is cancelled."""

    def give_up(self, delivered: int) -> None:
        """So many records were delivered, which are all that there are, and some of our questions have none.

        Raises:
            FleetError: The missing ones are ours.
        """

    def close(self) -> None:
        """No more questions are taken."""

    @property
    def is_over(self) -> bool:
        """Whether nothing waits to be sent, nor ever will."""

    @property
    def open(self) -> int:
        """How many were accepted, or are being sent, and have no record yet."""


@dataclass(frozen=True, slots=True)
class PendingQuestion:
    """A question that is to be sent.

    Attributes:
        asked: The question; its index is its position in the run.
        mark: Tells the questions up to this one from any others, for whoever resumes the run; empty if nobody will.
    """

    asked: ParsedQuestion | Invalid
    mark: str = ""

    @property
    def index(self) -> int:
        return self.asked.index


class StreamSource:
    """What waits to be sent, and what was sent and has no record yet.

    The latter is kept in case Redis loses its last second. Called by the thread that sends, by the one that
    receives, and by those that withdraw; each call is one step.

    Args:
        run: Its id, for messages.
        inbox: Where the questions come from, in the order of their indices; None where somebody else has sent them.

    Attributes:
        position: Redis' cursor, as far as we know: the next question to be accepted.
    """

    how_to_ask_again = "ask them again, in another run"

    def __init__(self, run: str, inbox: BoundedQueue[PendingQuestion] | None) -> None:
        self._run = run
        self._inbox = inbox
        self._lock = threading.Lock()
        self._waiting: deque[PendingQuestion] = deque()
        self._open: dict[int, PendingQuestion] = {}
        self._withdrawn: set[int] = set()
        self._seen = IndexSet()
        # Accepted before this process came.
        self._inherited = 0
        self._first = 0
        self._end = 0
        self.position = 0

    def begin(self, state: RunState) -> None:
        """Records of what an earlier process had accepted come to us."""
        self._inherited = state.accepted - state.acknowledged
        self._first = state.cursor
        self.move_to(state.cursor)

    def believe(self, state: RunState) -> None:
        """What is before Redis' cursor was accepted; what is behind it, and was accepted once, is to be sent again.

        Raises:
            FleetError: Some of it is not ours to send: an earlier process had, or nobody here has the questions.
        """
        if state.cursor < self._first and self._inherited > 0:
            msg = (
                f"Redis has lost run {self._run}: {self._inherited} questions that were accepted before this process "
                "came, and have no result, "
            )
            raise FleetError(msg + "are gone. Ask them again, in another run")
        self.move_to(state.cursor)

    def chunk(self, most: int, most_bytes: int, wait_s: float) -> Chunk | None:
        """The next questions to send, at least one if any waits. From now on their records may come."""
        if not self._waiting and self._inbox is not None:
            self._add(self._inbox.take(most, wait_s))
        with self._lock:
            chunk: list[PendingQuestion] = []
            size = 0
            for question in self._waiting:
                size += size_of(question.asked)
                if len(chunk) == most or (chunk and size > most_bytes):
                    break
                chunk.append(question)
                self._open[question.index] = question
            if not chunk:
                return None
            until = chunk[-1].index + 1
            self._end = max(self._end, until)
            return Chunk(self.position, until, [question.asked for question in chunk], chunk[-1].mark)

    def move_to(self, position: int) -> None:
        """Whether forward or, if Redis has lost something, back."""
        with self._lock:
            while self._waiting and self._waiting[0].index < position:
                self._waiting.popleft()
            if position < self.position:
                lost = [question for index, question in self._open.items() if position <= index < self.position]
                self._waiting.extendleft(sorted(lost, key=lambda question: -question.index))
            self.position = position
            self._end = max(self._end, position)

    def end(self, record: Answer | Failure) -> bool:
        """A record has come; an index that was never asked must not cost 2^60 bits."""
        with self._lock:
            asked = self._open.get(record.index)
            if asked is not None and asked.asked.request_id != record.request_id:
                log.error(
                    "skipped a record of question %s in the place of %s", record.request_id, asked.asked.request_id
                )
                return False
            if not 0 <= record.index < self._end or not self._seen.add(record.index):
                return False
            if self._open.pop(record.index, None) is None:
                self._inherited -= 1
            return True

    def withdraw(self, index: int) -> bool:
        """Take a question back if it was not sent; returns whether it was, so that only the fleet can still end it."""
        with self._lock:
            if index in self._open:
                return True
            before = len(self._waiting)
            self._waiting = deque(question for question in self._waiting if question.index != index)
            if len(self._waiting) == before and index >= self._end:
                # Still on its way to us.
                self._withdrawn.add(index)
            return False

    def drop_waiting(self) -> None:
        """It will not be accepted."""
        self.close()
        with self._lock:
            self._waiting.clear()
            self._open = {index: question for index, question in self._open.items() if index < self.position}

    def give_up(self, delivered: int) -> None:  # noqa: ARG002 (it makes no difference here)
        """What an earlier process had accepted may have been handled by it.

        Raises:
            FleetError: Ours have no record.
        """
        if self._open:
            raise FleetError(
                f"{len(self._open)} questions of run {self._run} have no result, and none will come: somebody "
                "removed records from Redis"
            )

    def close(self) -> None:
        """Tells those who put questions in."""
        if self._inbox is not None:
            self._inbox.close()

    @property
    def is_over(self) -> bool:
        """Whether nothing waits to be sent, nor ever will."""
        with self._lock:
            return not self._waiting and (self._inbox is None or self._inbox.is_over)

    @property
    def open(self) -> int:
        """How many have been sent and have no record yet, whoever has sent them."""
        with self._lock:
            return len(self._open) + max(0, self._inherited)

    def _add(self, questions: Sequence[PendingQuestion]) -> None:
        """Take questions in; those that were withdrawn meanwhile are dropped."""
        with self._lock:
            for question in questions:
                if question.index in self._withdrawn:
                    self._withdrawn.discard(question.index)
                else:
                    self._waiting.append(question)


class IndexSet:
    """Which indices have come, one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, index: int) -> bool:
        """Note an index; returns whether it is the first time. Memory grows with the largest: the caller bounds it."""
        byte, bit = index >> 3, 0x80 >> (index & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + len(self._bits) // 8))
        first = not self._bits[byte] & bit
        self._bits[byte] |= bit
        return first
