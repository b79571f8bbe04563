"""What a file of questions consists of, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["line", "element", "row"]
"""What the entries of a file are counted in.

Lines of JSON Lines and CSV, elements of an array, rows of Parquet and Arrow. All from 1.
"""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry of which not even the bytes can be had, and why."""

    reason: str


Entry = tuple[int, bytes | Unreadable]
"""(number of the line, element or row; its bytes, which are JSON, or should be)."""


def too_long(size: int, max_bytes: int) -> Unreadable:
    """What stands for an entry of `size` bytes that was passed over."""
    return Unreadable(f"it is {size} bytes long, and at most {max_bytes} are allowed; shorten it")
