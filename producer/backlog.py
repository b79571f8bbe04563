"""The questions of a run that is made while it goes, from when they are given until their record is there. Knows nothing of Redis."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from producer.questions.parser import Invalid, ParsedQuestion, size_of


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


class Backlog:
    """What waits to be sent, and what was sent and has no record yet. The latter is kept for the day when Redis forgets its last second.

    Called by the thread that sends, by the one that receives, and by those that withdraw; each call is one step.

    Attributes:
        position: Redis' cursor, as far as we know: the next question to be accepted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[PendingQuestion] = deque()
        self._open: dict[int, PendingQuestion] = {}
        self._withdrawn: set[int] = set()
        self._end = 0
        self.position = 0

    def add(self, questions: Iterable[PendingQuestion]) -> None:
        """Take questions in, in the order of their indices; those that were withdrawn meanwhile are dropped."""
        with self._lock:
            for question in questions:
                if question.index in self._withdrawn:
                    self._withdrawn.discard(question.index)
                else:
                    self._waiting.append(question)

    def chunk(self, most: int, most_bytes: int) -> list[PendingQuestion]:
        """The next questions to send, at least one if any waits. From now on their records may come."""
        with self._lock:
            chunk: list[PendingQuestion] = []
            size = 0
            for question in self._waiting:
                size += size_of(question.asked)
                if len(chunk) == most or (chunk and size > most_bytes):
                    break
                chunk.append(question)
                self._open[question.index] = question
            if chunk:
                self._end = max(self._end, chunk[-1].index + 1)
            return chunk

    def move_to(self, cursor: int) -> None:
        """Believe Redis' cursor: what is before it was accepted; what is behind it, and was accepted once, is to be sent again."""
        with self._lock:
            while self._waiting and self._waiting[0].index < cursor:
                self._waiting.popleft()
            if cursor < self.position:
                lost = [question for index, question in self._open.items() if cursor <= index < self.position]
                self._waiting.extendleft(sorted(lost, key=lambda question: -question.index))
            self.position = cursor
            self._end = max(self._end, cursor)

    def drop_waiting(self) -> None:
        """Forget what was not accepted: it will not be."""
        with self._lock:
            self._waiting.clear()
            self._open = {index: question for index, question in self._open.items() if index < self.position}

    def end(self, index: int) -> bool:
        """A record has come; returns whether we waited for it."""
        with self._lock:
            return self._open.pop(index, None) is not None

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

    def may_be(self, index: int) -> bool:
        """Whether a question of this index was ever sent."""
        with self._lock:
            return 0 <= index < self._end

    @property
    def waits(self) -> bool:
        """Whether anything is to be sent."""
        with self._lock:
            return bool(self._waiting)

    @property
    def open(self) -> int:
        """How many have been sent and have no record yet."""
        with self._lock:
            return len(self._open)


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
