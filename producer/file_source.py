"""The questions of a run that stand in files.

Read in chunks from where Redis' cursor is, and read again if that goes back.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from producer.questions.duplicates import count_before, is_set
from producer.questions.question_file import read_checked
from producer.questions.question_parser import Invalid, ParsedQuestion, size_of
from producer.resume import FileRun, ResumeState
from producer.reuse.identical import IdenticalQuestions
from producer.sender import RunState
from producer.stream_source import Chunk
from producer.token_budget import QUESTIONS_PER_CHUNK, TokenBudget
from wire.errors import UsageError
from wire.messages import Answer, Failure

log = logging.getLogger(__name__)


class FileSource:
    """Those of one file run.

    Remembers what has its line by a bit a question, and the ids of those that it has sent and that have none.

    Attributes:
        position: Redis' cursor, as far as we know: the next question to be accepted.
        is_at_ceiling: Whether nothing is open, and no more may be asked.
    """

    def __init__(
        self,
        what: FileRun,
        resume: ResumeState,
        answers: Path,
        identical: IdenticalQuestions | None = None,
        budget: TokenBudget | None = None,
    ) -> None:
        self.position = 0
        self.is_at_ceiling = False
        self._answers = answers
        self._identical = identical
        self._budget = budget
        self.how_to_ask_again = f"`batchfleet forget {what.run}`, then the same command, asks them again"
        self._what = what
        self._count = what.checked.count
        self._written = resume.written
        self._tally = resume.tally
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ids: dict[int, str] = {}
        self._chunk: Chunk | None = None
        self._chunks: Iterator[Chunk] | None = None
        self._next = 0
        self._is_cancelled = False
        self._ended_here = 0

    def begin(self, state: RunState) -> None:
        """As `believe`."""
        self.believe(state)

    def believe(self, state: RunState) -> None:
        """Go by Redis' cursor.

        The file is read again only if the cursor went elsewhere: to get to the end of a large one takes minutes.

        Raises:
            UsageError: More was delivered than the answers file has.
        """
        if state.acknowledged > self._tally.on_disk:
            self._complain_of_missing_lines(state.acknowledged)
        with self._lock:
            self.position = self._tally.sent = state.cursor
            self._tally.settled = count_before(self._written, state.cursor)

    def chunk(self, most: int, most_bytes: int, wait_s: float) -> Chunk | None:
        """The next questions that have no line yet. Called by the thread that sends, which alone reads the file."""
        position = self.position
        if self._is_cancelled or position >= self._count:
            return None
        if self._chunk is None or not self._chunk.start <= position < self._chunk.until:
            if self._budget is not None:
                most = min(most, QUESTIONS_PER_CHUNK)
            if self._chunks is None or self._next != position:
                self._chunks = self._chunks_from(position, most, most_bytes)
            self._chunk = next(self._chunks)
            self._next = self._chunk.until
            self._ids |= {question.index: question.request_id for question in self._chunk.questions}
        chunk = self._chunk.part(position, most)
        asked = len(chunk.questions)
        if self._budget is not None and asked and not self._budget.has_room(self._tally, self._open(asked)):
            # Perhaps there is once those that are open have taken less than is thought.
            self.is_at_ceiling = not self._tally.with_fleet
            self._ended.wait(wait_s)
            self._ended.clear()
            return None
        return chunk

    def _open(self, more: int) -> int:
        """Questions whose tokens nobody has counted yet: with the fleet, or come and not written, and so many more."""
        written = self._tally.done - self._tally.shared
        return self._tally.with_fleet + max(0, self._ended_here - written) + more

    def move_to(self, position: int) -> None:
        """Forward, over the chunk that was accepted. Some of it may have their lines already."""
        with self._lock:
            self._tally.settled += sum(is_set(self._written, index) for index in range(self.position, position))
            self.position = self._tally.sent = position

    def end(self, record: Answer | Failure) -> bool:
        """What was sent again after a crash has its line already, and what is of another question is not ours."""
        index = record.index
        if index >= self._count or is_set(self._written, index):
            return False
        if self._ids.get(index, record.request_id) != record.request_id:
            log.error("skipped a record of question %s in the place of %s", record.request_id, self._ids[index])
            return False
        with self._lock:
            self._ids.pop(index, None)
            self._ended_here += 1
            for ended in (index, *self._identical.waiting_for(index)) if self._identical else (index,):
                self._written[ended >> 3] |= 0x80 >> (ended & 7)
                if ended < self.position:
                    self._tally.settled += 1
        if self._budget is not None:
            self._ended.set()
        return True

    def drop_waiting(self) -> None:
        """The rest of the file is never asked."""
        self._is_cancelled = True

    def give_up(self, delivered: int) -> None:
        """Everything was delivered, but not to this file.

        Raises:
            UsageError: Always.
        """
        self._complain_of_missing_lines(delivered)

    def close(self) -> None:
        """Nobody gives questions to a file."""

    @property
    def is_over(self) -> bool:
        """Whether all of it was accepted, or never will be."""
        return self._is_cancelled or self.position >= self._count

    @property
    def open(self) -> int:
        """How many were accepted and have no line."""
        with self._lock:
            return self._tally.with_fleet

    def _chunks_from(self, cursor: int, most: int, most_bytes: int) -> Iterator[Chunk]:
        """The last one ends with the file, even if it has no questions."""
        chunk: list[ParsedQuestion | Invalid] = []
        start, size = cursor, 0
        for question in itertools.islice(
            read_checked(self._what.questions, self._what.reading, self._what.checked), cursor, None
        ):
            if not is_set(self._written, question.index) and not (
                self._identical is not None and self._identical.waits(question.index)
            ):
                chunk.append(question)
                size += size_of(question)
            if len(chunk) >= most or size >= most_bytes:
                yield Chunk(start, question.index + 1, chunk)
                start, chunk, size = question.index + 1, [], 0
        if start < self._count:
            yield Chunk(start, self._count, chunk)

    def _complain_of_missing_lines(self, delivered: int) -> None:
        raise UsageError(
            f"{delivered} records of run {self._what.run} were delivered before, but {self._answers} has only "
            f"{self._tally.on_disk} lines. "
            "Give the file that has them, or another --run to ask everything again"
        )
