"""Files of questions -> checked questions. Knows nothing of Redis.

They are read twice: `check_questions` goes through all of them before anything is sent, so that a slip in the last line
costs no GPU time, and `read_checked` then gives the questions one by one. Neither holds a file in memory. Which files
are meant is in `sources`, how a file is cut into entries in `formats`, what an entry may say in `column_mapping` and
`question_parser`, how equal ids are found in `duplicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import orjson
from msgspec.structs import replace

from producer.options import ReadingLimits
from producer.questions.checked import MAX_PROBLEMS_SHOWN, Checked, ModelUse, place_of, problem_report
from producer.questions.column_mapping import CONTENT_FIELDS
from producer.questions.duplicates import DuplicateFinder, id_table
from producer.questions.entries import Unreadable
from producer.questions.formats import FileId, Form, find_form, identify, read_entries
from producer.questions.json_object import UnusableError
from producer.questions.question_parser import Invalid, ParsedQuestion, QuestionParser, canonical, invalid_id
from producer.questions.row_marks import MarkTaker
from producer.questions.sources import Source
from wire.errors import UsageError

__all__ = ["Checked", "Invalid", "ParsedQuestion", "Source", "check_questions", "read_checked", "read_questions"]

_MOST_MODELS = 10_000
_LINE_BITS = 44
_TICK_EVERY = 1000

T = TypeVar("T")
Tick = Callable[[int], None]
"""Hears how many questions or answers were gone through."""
Inspect = Callable[[int, bytes | Unreadable], None]
"""Shown an entry as it stands in its file, with the number of its line."""


def read_questions(source: Source, limits: ReadingLimits) -> Iterator[ParsedQuestion | Invalid]:
    """Read files as they stand, question by question, in their order; repeated ids are not noticed.

    Raises:
        UsageError: A file cannot be read (when it is its turn), or there is no question (at the end).
    """
    forms = tuple(map(_form_finder(source), source.files))
    return (question for question, _ in _read(source, limits, forms, _positions(source, limits, forms)))


def check_questions(
    source: Source,
    limits: ReadingLimits,
    *,
    skip_invalid: bool = False,
    tick: Tick = lambda _: None,
    inspect: Inspect = lambda *_: None,
    note: Callable[[ParsedQuestion | Invalid], None] = lambda _: None,
) -> Checked:
    """Go through all the files.

    Args:
        source: The files; must not change meanwhile.
        limits: Must be the same in `read_checked`.
        skip_invalid: Only count the questions that cannot be used.
        tick: Called with the number of questions so far, now and then.
        inspect: Shown each entry before it is read; what it raises ends the reading.
        note: Called with each question, before repeated ids are known.

    Raises:
        UsageError: A file cannot be read, has not the columns it should, or changed meanwhile; there is no question, or
            far too many repeated ids; or questions cannot be used and `skip_invalid` is off, with the first of them by
            line.
    """
    file_ids = tuple(map(identify, source.files))
    forms = tuple(map(_form_finder(source), source.files))
    positions = _positions(source, limits, forms)
    first_problems: list[Invalid] = []
    uses: dict[str, int] = {}
    firsts: dict[str, ParsedQuestion] = {}
    count = invalid = total_bytes = 0
    fingerprint = blake2b(digest_size=16)
    marks = MarkTaker()
    with id_table() as table:
        ids = DuplicateFinder(table)
        for question, size in ticked(_read(source, limits, forms, positions, inspect), tick):
            usable = isinstance(question, ParsedQuestion)
            if isinstance(question, Invalid):
                invalid += 1
                if len(first_problems) < MAX_PROBLEMS_SHOWN:
                    first_problems.append(question)
            elif (model := question.model or "") in uses or len(uses) < _MOST_MODELS:
                uses[model] = uses.get(model, 0) + 1
                firsts.setdefault(model, question)
            # The id as JSON ends where its quotes do, so that no id can run into the content behind it.
            request_id = orjson.dumps(question.request_id)
            fingerprint.update(request_id + canonical(question) if isinstance(question, ParsedQuestion) else request_id)
            ids.add(
                question.request_id, question.index, question.file << _LINE_BITS | question.line, invalid=not usable
            )
            for one in source.samples.of(question):
                note(one)
            count += 1
            total_bytes += size
            if marks.wants(count):
                marks.take(fingerprint.digest())
        duplicates = ids.duplicates()
    _ensure_unchanged(source, file_ids)
    good_duplicates = [duplicate for duplicate in duplicates if not duplicate.invalid]
    invalid += len(good_duplicates)
    taken = {duplicate.index: _keeper(duplicate.line, duplicate.keeper_line, source, forms) for duplicate in duplicates}
    if invalid and not skip_invalid:
        first_problems += [
            _as_invalid(duplicate.index, duplicate.line, taken[duplicate.index]) for duplicate in good_duplicates
        ]
        raise UsageError(problem_report(source, forms, first_problems, invalid, count))
    models = {name: ModelUse(uses[name], place_of(source, forms, first)) for name, first in firsts.items()}
    return Checked(
        count,
        invalid,
        fingerprint.hexdigest(),
        total_bytes,
        forms,
        file_ids,
        taken,
        marks.marks(count),
        models,
        positions,
        source.samples.each,
    )


def read_checked(source: Source, limits: ReadingLimits, checked: Checked) -> Iterator[ParsedQuestion | Invalid]:
    """Read files that have been checked: `checked.count` questions in their order, no two with the same id.

    The samples of a question follow one another: their prompt is then in the engine's cache.

    Raises:
        UsageError: The files are not those that were checked: on the first question, or as soon as it shows. Also as
            `read_questions` does.
    """
    rows = _checked_rows(source, limits, checked)
    return (sample for row in rows for sample in source.samples.of(row)) if source.samples.count else rows


def _checked_rows(source: Source, limits: ReadingLimits, checked: Checked) -> Iterator[ParsedQuestion | Invalid]:
    _ensure_unchanged(source, checked.file_ids)
    count = 0
    for question, _ in _read(source, limits, checked.forms, checked.positions):
        if count == checked.rows:
            break
        count += 1
        keeper = checked.duplicates.get(question.index)
        if keeper is None:
            yield question
        elif isinstance(question, ParsedQuestion):
            yield _as_invalid(question.index, question.file << _LINE_BITS | question.line, keeper)
        else:
            yield replace(question, request_id=invalid_id(question.line, question.file))
    _ensure_unchanged(source, checked.file_ids)
    if count != checked.rows:
        raise _changed(source.files[-1])


def ticked(items: Iterator[T], tick: Tick) -> Iterator[T]:
    """The same items; `tick` is called with how many there were, now and then."""
    for number, item in enumerate(items):
        if not number % _TICK_EVERY:
            tick(number)
        yield item


def _form_finder(source: Source) -> Callable[[Path], Form]:
    """Finds what a file is, and complains if it is a table that lacks a column."""

    def find(path: Path) -> Form:
        form = find_form(path, source.format, source.csv, {*CONTENT_FIELDS, *source.shape.columns.values()})
        if form.columns is not None:
            source.shape.ensure_fits(form.columns, str(path))
        return form

    return find


def _positions(source: Source, limits: ReadingLimits, forms: Sequence[Form]) -> Collection[int] | None:
    return source.selection.positions(_chosen(source, limits, forms))


def _entries(
    source: Source, limits: ReadingLimits, forms: Sequence[Form]
) -> Iterator[tuple[int, int, bytes | Unreadable]]:
    """Number of the file, line, and what stands there."""
    for number, (path, form) in enumerate(zip(source.files, forms, strict=True)):
        # A condition may be on any column.
        all_columns = form.columns is None or source.where is not None
        wanted = None if all_columns else source.shape.wanted_of(form.columns or ())
        for line, entry in read_entries(path, limits.max_question_bytes, form, wanted):
            yield number, line, entry


def _chosen(
    source: Source, limits: ReadingLimits, forms: Sequence[Form]
) -> Iterator[tuple[int, int, int, bytes | Unreadable]]:
    """Those that `where` lets pass, each with its position among all."""
    for position, (number, line, entry) in enumerate(_entries(source, limits, forms)):
        try:
            if source.where is None or source.where.passes(entry):
                yield position, number, line, entry
        except UnusableError as error:
            yield position, number, line, Unreadable(str(error))


def _read(
    source: Source,
    limits: ReadingLimits,
    forms: Sequence[Form],
    positions: Collection[int] | None,
    inspect: Inspect = lambda *_: None,
) -> Iterator[tuple[ParsedQuestion | Invalid, int]]:
    """Questions, each with its size in bytes; 0 if it could not be read at all."""
    askers = [QuestionParser(number, source.shape, form.columns is not None) for number, form in enumerate(forms)]
    index = 0
    for rank, (position, number, line, entry) in enumerate(_chosen(source, limits, forms)):
        if positions is not None:
            if index == len(positions):
                break
            if rank not in positions:
                continue
        inspect(line, entry)
        if isinstance(entry, Unreadable):
            yield Invalid(index, line, invalid_id(line, number), entry.reason, number), 0
        else:
            # An id that is derived tells the position among all: it is the same whichever of them are asked.
            question = source.samples.checked(askers[number].ask(entry, position, line))
            yield question if index == position else replace(question, index=index), len(entry)
        index += 1
    if not index:
        raise UsageError(f"{source}: there are no questions in it")


def _spot(packed: int) -> tuple[int, int]:
    """(number of the file, line in it)."""
    return packed >> _LINE_BITS, packed & ((1 << _LINE_BITS) - 1)


def _keeper(packed: int, keeper: int, source: Source, forms: Sequence[Form]) -> str:
    """In words, where the question stands that keeps an id."""
    (file, _), (keeper_file, line) = _spot(packed), _spot(keeper)
    return f"{forms[keeper_file].place} {line}" + ("" if file == keeper_file else f" of {source.files[keeper_file]}")


def _as_invalid(index: int, packed: int, keeper: str) -> Invalid:
    file, line = _spot(packed)
    reason = f"its id is already that of {keeper}; give each question an id of its own, or none"
    return Invalid(index, line, invalid_id(line, file), reason, file)


def _ensure_unchanged(source: Source, file_ids: Sequence[FileId]) -> None:
    for path, file_id in zip(source.files, file_ids, strict=True):
        if identify(path) != file_id:
            raise _changed(path)


def _changed(path: Path) -> UsageError:
    return UsageError(f"{path}: it changed while it was read; run the command again when nothing writes to it")
