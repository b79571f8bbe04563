"""The lines of an answers file, each with the question that it answers.

They are given as they came, or in the order of the questions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from producer.answers.answers_file import BOM
from producer.answers.record_formats import record_of
from producer.answers.sample_lists import unlisted
from producer.answers.sidecar import stored_about
from producer.questions import compression
from producer.questions.duplicates import IdTable, id_table
from producer.questions.entries import Unreadable
from producer.questions.formats import find_form, read_entries
from producer.questions.question_parser import Invalid, ParsedQuestion, former_id, position_in
from producer.questions.samples import MOST_SAMPLES, sample_of
from wire.errors import UsageError

Questions = Callable[[], Iterator[ParsedQuestion | Invalid]]
"""Goes through the questions from the beginning, each time that it is called."""

MOST_ANSWER_BYTES = 64 * 1024 * 1024
"""Of an answer in a table or a compressed file."""

_SAMPLES = MOST_SAMPLES + 1
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
        sample: Which one of its question, from 1; 0 if that was asked once, or where samples are questions themselves.
    """

    line: bytes
    fields: dict[str, Any]
    index: int
    asked: ParsedQuestion | Invalid | None = None
    sample: int = 0


@contextmanager
def opened_lines(path: Path) -> Iterator[AnswerLines]:
    """A file of answers, whatever its format; what is no JSON Lines, or compressed, is unpacked into a temporary file.

    Raises:
        UsageError: The file cannot be read, or holds no answers.
    """
    form = find_form(path)
    if form.kind == "lines" and compression.without_suffix(path) == path and not _has_lists(path):
        yield AnswerLines(path, path)
        return
    with tempfile.NamedTemporaryFile(prefix="batchfleet-answers-") as file:
        try:
            for number, entry in read_entries(path, MOST_ANSWER_BYTES, form):
                place = f"{path}, {form.place} {number}"
                if isinstance(entry, Unreadable):
                    raise UsageError(f"{place}: {entry.reason}")
                file.writelines(_normal(line, place)[0] for line in unlisted(entry))
            file.flush()
        except OSError as error:
            raise UsageError(
                f"cannot unpack {path} ({error.strerror}); free some space, or set TMPDIR to a folder that has some"
            ) from None
        yield AnswerLines(path, Path(file.name))


def _has_lists(path: Path) -> bool:
    """Whether the first line has all samples of its question."""
    with path.open("rb") as file:
        return "samples" in (_loaded(file.readline(MOST_ANSWER_BYTES)) or {})


@dataclass(frozen=True, slots=True)
class AnswerLines:
    """Answers that can be gone through again and again.

    Attributes:
        path: Of the file, for people.
        lines: Where they are, a line each; `path` itself or a copy.
    """

    path: Path
    lines: Path

    def as_they_came(self) -> Iterator[Answered]:
        """All of them. A last line that is cut off is still being written, and left out.

        Raises:
            UsageError: The file cannot be read, or a line is no answer.
        """
        return (Answered(line, fields, index) for index, (_, _, line, fields) in enumerate(self._located()))

    @contextmanager
    def in_order(self, questions: Questions) -> Iterator[Iterator[Answered]]:
        """In the order of the questions; questions without a line are passed over.

        What memory cannot hold is in temporary files.

        Raises:
            UsageError: As `as_they_came`; or a line answers no question, or one that has a line already.
        """
        with id_table() as by_id, id_table() as by_index:
            for question in questions():
                # Its id, and the one that an earlier version derived.
                former = former_id(question) if isinstance(question, ParsedQuestion) else None
                for request_id in {question.request_id, former or question.request_id}:
                    by_id.add(request_id, _QUESTION, question.index)
            for start, _, _, fields in self._located():
                if not fields.get("removed"):
                    by_id.add(fields["id"], _LINE, start)
            strays = _place_lines(by_id, by_index)
            if strays.may_be_samples:
                strays = self._place_samples(questions, by_index)
            if strays:
                raise UsageError(self._why_stray(strays, questions))
            with self.lines.open("rb") as lines:
                yield self._joined(lines, by_index, questions())

    def _joined(
        self, lines: BinaryIO, by_index: IdTable, questions: Iterator[ParsedQuestion | Invalid]
    ) -> Iterator[Answered]:
        asked = next(questions, None)
        for _, _, packed, start in by_index.uses():
            index, sample = divmod(packed, _SAMPLES)
            while asked is not None and asked.index < index:
                asked = next(questions, None)
            lines.seek(start)
            yield Answered(*_normal(lines.readline(), str(self.path)), index, asked, sample)

    def _place_samples(self, questions: Questions, by_index: IdTable) -> Strays:
        """Where ids are those of samples, and questions are given as they stand in their files."""
        with id_table() as by_base:
            for question in questions():
                by_base.add(question.request_id, _QUESTION, question.index)
            for start, _, _, fields in self._located():
                base, sample = sample_of(fields["id"]) or (fields["id"], 0)
                if not fields.get("removed"):
                    by_base.add(base, _LINE, start, sample)
            by_index.clear()
            return _place_lines(by_base, by_index)

    def _why_stray(self, strays: Strays, questions: Questions) -> str:
        """What is wrong with the first line that has no place of its own, and what to do about it."""
        if strays.repeated_id is not None:
            first, second = self._numbers_of(strays.repeated_id)[:2]
            twin = self._place(first)
            return f"{self._place(second)}: its id {strays.repeated_id!r} is that of {twin} already; remove one of them"
        form = stored_about(self.path).get("fingerprint", {}).get("asked as") or "such as --id-column"
        advice = f"give the questions of its run, with the flags that they were asked with ({form})"
        if strays.index is None:
            place = self._place(self._numbers_of(strays.unknown_id or "")[0])
            return f"{place}: none of these questions has its id {strays.unknown_id!r}; {advice}"
        asked = next((one for one in questions() if position_in(one.request_id) == strays.index), None)
        if asked is None:
            return f"{self.path}: it has an answer to question {strays.index + 1}, and there are fewer; {advice}"
        number = strays.index + 1
        return f"{self.path}: question {number} (line {asked.line}) is not the one that was answered; {advice}"

    def _numbers_of(self, request_id: str) -> list[int]:
        return [number for _, number, _, fields in self._located() if fields["id"] == request_id]

    def _place(self, number: int) -> str:
        return f"{self.path}:{number}" if self.lines == self.path else f"{self.path}, answer {number}"

    def _located(self) -> Iterator[tuple[int, int, bytes, dict[str, Any]]]:
        """(byte at which it begins, its number, line, what it says)."""
        start = 0
        try:
            with self.lines.open("rb") as file:
                for number, line in enumerate(file, 1):
                    is_torn = not line.endswith(b"\n") and record_of(_loaded(line)) is None
                    if line.strip() and not is_torn:
                        yield start, number, *_normal(line, self._place(number))
                    start += len(line)
        except OSError as error:
            raise UsageError(f"{self.path}: it cannot be read ({error.strerror})") from None


@dataclass(slots=True)
class Strays:
    """Lines that have no place of their own.

    Attributes:
        repeated_id: The id of a question that has several lines; None if there is none.
        unknown_id: An id that no question has; None if there is none.
        index: The position of the first of the questions for which such ids were derived; None if none was derived.
        may_be_samples: Whether the first such id looks like that of a sample.
    """

    repeated_id: str | None = None
    unknown_id: str | None = None
    index: int | None = None
    may_be_samples: bool = False

    def __bool__(self) -> bool:
        return self.repeated_id is not None or self.unknown_id is not None


def _place_lines(by_id: IdTable, by_index: IdTable) -> Strays:
    """Give each line to its question: what `by_index` then holds is the index, and where the line begins."""
    strays = Strays()
    for key, uses in groupby(by_id.uses(), itemgetter(0)):
        (_, kind, index, _), *starts = uses
        request_id = key.decode("utf-8", "surrogatepass")
        if kind == _LINE:
            if strays.unknown_id is None:
                strays.unknown_id, strays.may_be_samples = request_id, sample_of(request_id) is not None
            derived_for = position_in(request_id)
            if derived_for is not None and (strays.index is None or derived_for < strays.index):
                strays.index = derived_for
        elif starts:
            samples = set[int]()
            for _, _, start, sample in starts:
                if sample in samples and strays.repeated_id is None:
                    strays.repeated_id = f"{request_id}#{sample}" if sample else request_id
                elif sample not in samples:
                    by_index.add("", _LINE, index * _SAMPLES + sample, start)
                samples.add(sample)
    return strays


def _normal(line: bytes, place: str) -> tuple[bytes, dict[str, Any]]:
    """A line as we write them, and what it says."""
    found = _loaded(line)
    fields = record_of(found)
    if fields is None:
        raise UsageError(
            f"{place}: it is not an answer; "
            "answers are what `batchfleet run` and `submit` write, or the output of an OpenAI batch"
        )
    if fields is not found or not line.endswith(b"\n") or line.startswith(BOM):
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    return line, fields


def _loaded(line: bytes) -> dict[str, Any] | None:
    with suppress(orjson.JSONDecodeError):
        found = orjson.loads(line.removeprefix(BOM))
        if isinstance(found, dict):
            return found
    return None
