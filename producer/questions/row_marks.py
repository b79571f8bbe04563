"""Marks along a file of questions, by which a changed row is found again. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_MARKS = 8192
"""Up to so many questions every row has its mark; of more, every second, fourth, ... row."""
_BYTES = 3


@dataclass(frozen=True, slots=True)
class RowMarks:
    """What was asked, in short.

    Attributes:
        count: Of the questions.
        every: A mark stands behind each so many rows, a power of two.
        sums: The marks, each the first bytes of a hash over all rows up to it.
    """

    count: int
    every: int
    sums: bytes

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "every": self.every, "sums": base64.b64encode(self.sums).decode()}

    @classmethod
    def of(cls, stored: object) -> RowMarks | None:
        """What `as_json` made; None if that is not what this is."""
        if not isinstance(stored, Mapping):
            return None
        try:
            marks = cls(int(stored["count"]), int(stored["every"]), base64.b64decode(stored["sums"], validate=True))
        except (KeyError, TypeError, ValueError, binascii.Error):
            return None
        return marks if marks.every > 0 else None


class MarkTaker:
    """Takes marks while questions are read, in at most 24 KiB."""

    def __init__(self) -> None:
        self._every = 1
        self._sums = bytearray()

    def wants(self, count: int) -> bool:
        """Whether a mark stands behind row number `count`."""
        return count % self._every == 0

    def take(self, digest: bytes) -> None:
        self._sums += digest[:_BYTES]
        if len(self._sums) == MOST_MARKS * _BYTES:
            self._every *= 2
            self._sums = bytearray(b"".join(_mark(self._sums, number) for number in range(1, MOST_MARKS, 2)))

    def marks(self, count: int) -> RowMarks:
        return RowMarks(count, self._every, bytes(self._sums))


def first_difference(then: RowMarks, now: RowMarks) -> tuple[int, int]:
    """The first and the last of the rows, from 1, among which is the first one that differs.

    Where all rows that both have are the same, the row behind them; of rows behind the last mark nothing is known.
    """
    every = max(then.every, now.every)
    shared = min(then.count, now.count)
    for end in range(every, shared + 1, every):
        if _mark(then.sums, end // then.every - 1) != _mark(now.sums, end // now.every - 1):
            return end - every + 1, end
    known = shared - shared % every
    return known + 1, max(shared, known + 1)


def _mark(sums: bytes | bytearray, number: int) -> bytes:
    return bytes(sums[_BYTES * number : _BYTES * (number + 1)])
