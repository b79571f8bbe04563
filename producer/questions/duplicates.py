"""Which ids occur where, for any number of ids: SQLite keeps them in a few megabytes of memory and a temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from wire.errors import UsageError

MOST_DUPLICATES = 100_000
"""More ids than this that are not the first of their kind are not a slip; the file was made wrongly."""

_MOST_UNKNOWN_IDS = 5
_MOST_ID_BYTES = 4096
_QUESTION, _ANSWER = 0, 1
_ROWS_AT_ONCE = 1000
_STEPS_BETWEEN_LOOKS = 100_000


class AnsweredPositions(NamedTuple):
    """Which questions of a file have been answered already.

    Attributes:
        bitmap: One bit per question, set if it is answered; ceil(count / 8) bytes. Bit order is that of Redis: index 0
            is the highest bit.
        unknown: Up to 5 answered ids that no question has; from another file, most likely.
        repeated: How many ids were answered more than once.
        repeated_id: One of these; empty if there is none.
    """

    bitmap: bytearray
    unknown: list[str]
    repeated: int
    repeated_id: str = ""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A question whose id belongs to another.

    Attributes:
        index, line, invalid: As they were added.
        keeper_line: Line of the question that keeps the id.
    """

    index: int
    line: int
    invalid: bool
    keeper_line: int


def is_set(bitmap: bytes | bytearray, index: int) -> bool:
    """Look up one bit, in the bit order of Redis."""
    return bool(bitmap[index >> 3] & (0x80 >> (index & 7)))


def count_before(bitmap: bytes | bytearray, end: int) -> int:
    """How many bits are set before position `end`."""
    whole, rest = divmod(end, 8)
    last = bitmap[whole] >> (8 - rest) if rest else 0
    return int.from_bytes(bitmap[:whole], "big").bit_count() + last.bit_count()


class IdTable:
    """Any number of ids, each with what belongs to it, which come back sorted. Made by `id_table`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute("CREATE TABLE uses (id BLOB, kind INTEGER, number INTEGER, line INTEGER)")
        self._waiting: list[tuple[bytes, int, int, int]] = []

    def add(self, request_id: str, kind: int, number: int, line: int = 0) -> None:
        """Note one use of an id: any text, and numbers below 2**63."""
        # surrogatepass: an answer file may hold anything, and must not bring the comparison down.
        self._waiting.append((request_id.encode("utf-8", "surrogatepass"), kind, number, line))
        if len(self._waiting) == _ROWS_AT_ONCE:
            self._store()

    def uses(self) -> Iterator[tuple[bytes, int, int, int]]:
        """What was added, by id, and for one id by kind and number. Equal ids are equal bytes."""
        self._store()
        return self._database.execute("SELECT * FROM uses ORDER BY id, kind, number")

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self._database.execute("DELETE FROM uses")

    def _store(self) -> None:
        self._database.executemany("INSERT INTO uses VALUES (?, ?, ?, ?)", self._waiting)
        self._waiting.clear()


@contextmanager
def id_table() -> Iterator[IdTable]:
    """A table of this process alone: in memory while it is small, then in files of TMPDIR.

    The files have no name, and vanish with the process.

    Raises:
        UsageError: There is no room for it; raised from whatever is done with the table.
    """
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as database:
            # Nobody will ever read it again, so nothing in it need survive.
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA temp_store = FILE; BEGIN")
            # Sorting is one long call: in here, Ctrl-C is heard.
            database.set_progress_handler(lambda: 0, _STEPS_BETWEEN_LOOKS)
            yield IdTable(database)
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise KeyboardInterrupt from None
        raise UsageError(
            f"cannot keep ids in a temporary file ({error}); free some space, or set TMPDIR to a folder that has some"
        ) from None


class DuplicateFinder:
    """Finds ids that occur more than once."""

    def __init__(self, table: IdTable) -> None:
        self._table = table

    def add(self, request_id: str, index: int, line: int, *, invalid: bool) -> None:
        """Note one id.

        Args:
            request_id: Any text.
            index: Position among the questions.
            line: Where people find it.
            invalid: The question is unusable anyway, so it should not take the id from one that is not.
        """
        self._table.add(request_id, invalid, index, line)

    def duplicates(self) -> list[Duplicate]:
        """Tell which questions must give up their id, in no order.

        The first valid question with an id keeps it, or the first invalid one if no valid one has it.

        Raises:
            UsageError: There are more than `MOST_DUPLICATES`.
        """
        found: list[Duplicate] = []
        last, keeper_line = None, 0
        for key, invalid, index, line in self._table.uses():
            if key != last:
                last, keeper_line = key, line
                continue
            found.append(Duplicate(index, line, bool(invalid), keeper_line))
            if len(found) > MOST_DUPLICATES:
                raise UsageError(
                    f"more than {MOST_DUPLICATES} questions have the id of another (number {index + 1}, for one); give "
                    "each its own, or none"
                )
        return found


def positions_answered(questions: Iterable[tuple[str, int]], answered_ids: Iterable[str]) -> AnsweredPositions:
    """Match the questions of a file with the ids in an answer file that an earlier attempt left.

    Each iterable is gone through once, questions first. Memory: the bitmap and a few megabytes.

    Args:
        questions: (request id, index) of every question; ids are unique, indices are 0 to count - 1, in any order.
        answered_ids: Ids that have an answer; any text, in any order, repetitions allowed.

    Raises:
        UsageError: The temporary file cannot be written.
    """
    count = 0
    with id_table() as table:
        for request_id, index in questions:
            table.add(request_id, _QUESTION, index)
            count += 1
        for number, request_id in enumerate(answered_ids):
            table.add(request_id, _ANSWER, number)
        bitmap, unknown, repeated, repeated_id = bytearray((count + 7) // 8), list[str](), 0, ""
        for key, uses in groupby(table.uses(), itemgetter(0)):
            (_, kind, index, _), *others = uses
            answers = len(others) + (kind == _ANSWER)
            if answers > 1:
                repeated += 1
                repeated_id = repeated_id or key.decode("utf-8", "replace")
            if kind == _QUESTION and answers:
                bitmap[index >> 3] |= 0x80 >> (index & 7)
            elif kind == _ANSWER and len(unknown) < _MOST_UNKNOWN_IDS:
                unknown.append(key[:_MOST_ID_BYTES].decode("utf-8", "replace"))
    return AnsweredPositions(bitmap, unknown, repeated, repeated_id)
