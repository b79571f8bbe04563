"""From answers to one file of questions to those that also answer another. Nothing is asked here.

A row is known again by what it asks and, if it has one of its own, by its id; never by its place. What memory cannot
hold is in temporary files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from producer.answers.answer_line import parse_line
from producer.answers.answers_file import BOM, AnswersFile, OutputFullError
from producer.questions.duplicates import IdTable, id_table
from producer.questions.question_file import Tick, read_checked, ticked
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.resume import FileRun
from wire.errors import UsageError

OUTDATED = ".outdated"
_ROW, _LINE = 0, 1


@dataclass(frozen=True, slots=True)
class UpdateCounts:
    """The rows of a file, compared with the answers of an earlier one.

    Attributes:
        kept: Rows that keep their line.
        changed: Rows whose id has a line that answers something else.
        new: Rows without a line: new ones, those that had none yet, and, without ids of their own, changed ones.
        unusable: Rows that cannot be asked.
        removed: Lines that answer no row any more.
    """

    kept: int
    changed: int
    new: int
    unusable: int
    removed: int


class Update:
    """Matches lines and rows when it is entered.

    Args:
        lines: The answers file; only read.
        keeps_removed: Whether lines of rows that are gone stay, marked as such.

    Attributes:
        counts: What was found.
    """

    def __init__(self, what: FileRun, lines: Path, *, keeps_removed: bool = False, tick: Tick = lambda _: None) -> None:
        self._what = what
        self._path = lines
        self._keeps_removed = keeps_removed
        self._tick = tick
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self._kept = closing.enter_context(id_table())
            self._outdated = closing.enter_context(id_table())
            self._file = closing.enter_context(self._path.open("rb"))
            unmatched = closing.enter_context(id_table())
            self.counts = self._count(unmatched, *self._match(unmatched))
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, traceback)

    def apply(self, answers: AnswersFile) -> None:
        """Leave the answers file with the lines that stay, in the order of the rows, whole at any time.

        What goes is kept in `NAME.outdated`.

        Raises:
            OutputFullError: The disk is full, or fails; the answers are as they were.
        """
        try:
            with open(f"{answers.path}{OUTDATED}", "ab") as outdated:  # noqa: PTH123 (a name with something behind it)
                for _, _, start, stays in self._outdated.uses():
                    if not stays:
                        outdated.write(self._line_at(start)[0])
                outdated.flush()
                os.fsync(outdated.fileno())
                is_empty = not outdated.tell()
            if is_empty:
                Path(outdated.name).unlink()
        except OSError as error:
            raise OutputFullError(
                f"cannot write to {answers.path}{OUTDATED}: {error.strerror}; "
                "free some space and run the same command again"
            ) from None
        answers.replace_lines(self._lines())

    def _match(self, unmatched: IdTable) -> tuple[int, int]:
        """Give each row a line that answers it; returns how many rows have one, and how many cannot be asked."""
        keys, checked = self._what.keys, self._what.checked
        if keys is None:
            raise ValueError("rows have no keys")
        kept = unusable = 0
        with id_table() as by_key:
            for index in ticked(iter(range(checked.count)), self._tick):
                key = None if index // checked.samples in checked.duplicates else keys.of(index)
                if key is None:
                    unusable += 1
                    unmatched.add("", _ROW, index, 1)
                else:
                    by_key.add(key, _ROW, index)
            for start, key in self._keys_of_lines():
                by_key.add(key, _LINE, start)
            for _, uses in groupby(by_key.uses(), itemgetter(0)):
                numbers: tuple[list[int], list[int]] = ([], [])
                for _, kind, number, _ in uses:
                    numbers[kind].append(number)
                rows, starts = numbers
                for index, start in zip(rows, starts, strict=False):
                    self._kept.add("", _ROW, index, start)
                kept += min(len(rows), len(starts))
                for index in rows[len(starts) :]:
                    unmatched.add("", _ROW, index)
                for start in starts[len(rows) :]:
                    unmatched.add("", _LINE, start)
        return kept, unusable

    def _count(self, unmatched: IdTable, kept: int, unusable: int) -> UpdateCounts:
        """Tell changed rows from new ones, by the ids of what has no counterpart."""
        changed = new = removed = 0
        with id_table() as by_id:
            rows = ((index, bool(is_unusable)) for _, kind, index, is_unusable in unmatched.uses() if kind == _ROW)
            wanted = next(rows, None)
            for question in self._questions() if wanted else ():
                if wanted is not None and question.index == wanted[0]:
                    by_id.add(question.request_id, _ROW, question.index, wanted[1])
                    wanted = next(rows, None)
            for _, kind, start, _ in unmatched.uses():
                if kind == _LINE:
                    by_id.add(self._line_at(start)[1]["id"], _LINE, start)
            for _, uses in groupby(by_id.uses(), itemgetter(0)):
                found = list(uses)
                asked = [bool(is_unusable) for _, kind, _, is_unusable in found if kind == _ROW]
                lines = [start for _, kind, start, _ in found if kind == _LINE]
                stays = self._keeps_removed and not asked
                for start in lines:
                    self._outdated.add("", _LINE, start, stays)
                removed += len(lines) if not asked else 0
                changed += bool(lines) and asked == [False]
                new += not lines and asked == [False]
        return UpdateCounts(kept, changed, new, unusable, removed)

    def _keys_of_lines(self) -> Iterator[tuple[int, str]]:
        """Where each line begins that may stay, and the key of what it answers."""
        start = 0
        for number, raw in enumerate(self._file, 1):
            fields = parse_line(raw.removeprefix(BOM))
            if fields is not None and (fields.get("error") or {}).get("kind") != "invalid_question":
                key = fields.get("asked")
                if not isinstance(key, str):
                    raise UsageError(
                        f"{self._path}:{number}: it does not say what was asked (`asked`), as lines of an earlier "
                        "version do not, so no row can be recognized; choose another -o"
                    )
                yield start, key
            elif fields is None and raw.strip() and raw.endswith(b"\n"):
                raise UsageError(
                    f"{self._path}:{number}: not an answer line; mend or move the file, or choose another -o"
                )
            start += len(raw)

    def _lines(self) -> Iterator[bytes]:
        places = self._kept.uses()
        place = next(places, None)
        for question in self._questions() if place else ():
            if place is not None and question.index == place[2]:
                yield _as_line_of(question, *self._line_at(place[3]))
                place = next(places, None)
        for _, _, start, stays in self._outdated.uses():
            if stays:
                yield orjson.dumps(self._line_at(start)[1] | {"removed": True}, option=orjson.OPT_APPEND_NEWLINE)

    def _questions(self) -> Iterator[ParsedQuestion | Invalid]:
        return ticked(read_checked(self._what.questions, self._what.reading, self._what.checked), self._tick)

    def _line_at(self, start: int) -> tuple[bytes, dict[str, Any]]:
        self._file.seek(start)
        line = self._file.readline().removeprefix(BOM)
        line = line if line.endswith(b"\n") else line + b"\n"
        return line, parse_line(line) or {}


def _as_line_of(question: ParsedQuestion | Invalid, line: bytes, fields: dict[str, Any]) -> bytes:
    """The same line, with what the row says now of its id and its metadata."""
    metadata = question.metadata if isinstance(question, ParsedQuestion) else None
    if (fields["id"], fields.get("metadata"), "removed" in fields) == (question.request_id, metadata, False):
        return line
    changed = {name: value for name, value in fields.items() if name not in ("metadata", "removed")}
    changed["id"] = question.request_id
    if metadata is not None:
        changed["metadata"] = metadata
    return orjson.dumps(changed, option=orjson.OPT_APPEND_NEWLINE)
