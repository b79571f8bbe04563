"""The lines of an answers file, as they came or in the order of the questions, each with the question that it answers."""

from __future__ import annotations

import mmap
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from producer.questions import compression
from producer.questions.duplicates import digest_of
from producer.questions.parser import Invalid, ParsedQuestion
from producer.questions.spill_file import PARTITIONS, Spill
from wire.errors import UsageError

Questions = Callable[[], Iterator[ParsedQuestion | Invalid]]
"""Goes through the questions from the beginning, each time that it is called."""

_PLACE = struct.Struct("<Q")
_ENTRY = struct.Struct("<16sQ")
"""Digest of an id, and a number that belongs to it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One line of an answers file.

    Attributes:
        line: As it stands there, with the newline.
        fields: What it says.
        index: Position of its question; where the questions are not known, of the line.
        asked: Its question; None where the questions are not known.
    """

    line: bytes
    fields: dict[str, Any]
    index: int
    asked: ParsedQuestion | Invalid | None = None


def as_they_came(path: Path) -> Iterator[Answered]:
    """All lines. A last line without its end is still being written, and left out.

    Raises:
        UsageError: The file cannot be read, or a line is no answer.
    """
    return (Answered(line, fields, index) for index, (_, line, fields) in enumerate(_lines(path)))


@contextmanager
def in_order(path: Path, questions: Questions) -> Iterator[Iterator[Answered]]:
    """The lines in the order of the questions; questions without a line are passed over. What memory cannot hold is in temporary files.

    Raises:
        UsageError: As `as_they_came`; or a line answers no question, or the file is compressed.
    """
    try:
        with tempfile.TemporaryFile(prefix="batchfleet-order-") as file:
            count = _spilled_questions_and_lines(path, questions, file)
            with path.open("rb") as lines, mmap.mmap(file.fileno(), max(_PLACE.size * count, 1)) as places:
                yield _joined(lines, places, questions())
    except OSError as error:
        msg = f"cannot put {path} in order ({error.strerror}); free some space, or set TMPDIR to a folder that has some"
        raise UsageError(msg) from None


def _joined(lines: BinaryIO, places: mmap.mmap, questions: Iterator[ParsedQuestion | Invalid]) -> Iterator[Answered]:
    for index, asked in enumerate(questions):
        (place,) = _PLACE.unpack_from(places, _PLACE.size * index)
        if place:
            lines.seek(place - 1)
            line = lines.readline()
            yield Answered(line, orjson.loads(line), index, asked)


def _spilled_questions_and_lines(path: Path, questions: Questions, file: BinaryIO) -> int:
    """Write, for each question, where its line begins, plus one; 0 if it has none. Returns the number of questions."""
    with Spill() as asked, Spill() as answered:
        count = _spill(((question.request_id, question.index) for question in questions()), asked)
        _spill(((fields["id"], start) for start, _, fields in _lines(path)), answered)
        file.truncate(max(_PLACE.size * count, 1))
        with mmap.mmap(file.fileno(), 0) as places:
            for partition in range(PARTITIONS):
                index_of = dict(_entries(asked, partition))
                for digest, start in _entries(answered, partition):
                    if digest not in index_of:
                        msg = f"{path}: the line at byte {start + 1} answers none of these questions, or one that has a line already; "
                        msg += "give the questions of its run, with the flags that they were read with"
                        raise UsageError(msg)
                    _PLACE.pack_into(places, _PLACE.size * index_of.pop(digest), start + 1)
    return count


def _spill(entries: Iterable[tuple[str, int]], spill: Spill) -> int:
    count = 0
    for request_id, number in entries:
        digest = digest_of(request_id)
        spill.append(digest[0], _ENTRY.pack(digest, number))
        count += 1
    return count


def _entries(spill: Spill, partition: int) -> Iterator[tuple[bytes, int]]:
    return (entry for block in spill.blocks(partition) for entry in _ENTRY.iter_unpack(block))


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """(byte at which it begins, line, what it says)."""
    start = 0
    try:
        with compression.opened(path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                yield start, line, _fields(path, number, line)
                start += len(line)
    except OSError as error:
        msg = f"{path}: it cannot be read ({error.strerror})"
        raise UsageError(msg) from None


def _fields(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
        if isinstance(fields["id"], str) and fields["status"] in ("answered", "failed"):
            return dict(fields)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    msg = f"{path}:{number}: it is not an answer line; answers are what `batchfleet run` and `submit` write as JSONL"
    raise UsageError(msg)
