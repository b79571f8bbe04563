"""The lines of an answers file, as they came or in the order of the questions, each with the question that it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from producer.questions import compression
from producer.questions.duplicates import IdTable, id_table
from producer.questions.parser import Invalid, ParsedQuestion
from wire.errors import UsageError

Questions = Callable[[], Iterator[ParsedQuestion | Invalid]]
"""Goes through the questions from the beginning, each time that it is called."""

_QUESTION, _LINE = 0, 1
"""Kinds of what an id is found in; a question comes before its line."""


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
    with id_table() as by_id, id_table() as by_index:
        for question in questions():
            by_id.add(question.request_id, _QUESTION, question.index)
        for start, _, fields in _lines(path):
            by_id.add(fields["id"], _LINE, start)
        open_question: tuple[bytes, int] | None = None
        for key, kind, number, _ in by_id.uses():
            if kind == _QUESTION:
                open_question = (key, number)
            elif open_question is None or open_question[0] != key:
                msg = f"{path}: the line at byte {number + 1} answers none of these questions, or one that has a line already; "
                msg += "give the questions of its run, with the flags that they were read with"
                raise UsageError(msg)
            else:
                by_index.add("", _LINE, open_question[1], number)
                open_question = None
        with path.open("rb") as lines:
            yield _joined(lines, by_index, questions())


def _joined(lines: BinaryIO, by_index: IdTable, questions: Iterator[ParsedQuestion | Invalid]) -> Iterator[Answered]:
    asked = next(questions, None)
    for _, _, index, start in by_index.uses():
        while asked is not None and asked.index < index:
            asked = next(questions, None)
        lines.seek(start)
        line = lines.readline()
        yield Answered(line, orjson.loads(line), index, asked)


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
