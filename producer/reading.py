"""A file of questions -> checked questions. Knows nothing of Redis.

A file is read twice: `check_questions` goes through all of it before anything is sent, so that a slip in the last line costs no GPU time, and
`read_checked` then gives the questions one by one. Neither holds the file in memory. How a file is cut into entries is in `formats`, what an
entry may say in `asking`, how equal ids are found in `identity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import orjson

from producer.asking import Asked, Invalid, ask, canonical, invalid_id
from producer.entries import Unreadable
from producer.formats import FileId, Place, find_place, identify, read_entries
from producer.identity import DuplicateFinder
from wire.errors import UsageError

__all__ = ["Asked", "Checked", "Invalid", "ReadingLimits", "check_questions", "read_checked", "read_questions"]

_MOST_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What a file may ask of this machine.

    Attributes:
        max_question_bytes: Longest entry, in bytes as it stands in the file. Longer ones are passed over without being held in memory.
    """

    max_question_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """What one pass over a file found.

    Attributes:
        count: Questions in the file, unusable ones included; their indices are 0 to count - 1.
        invalid: How many of them are `Invalid` when read by `read_checked`, duplicates included.
        fingerprint: What is asked, by which ids, in which order, as 32 hexadecimal digits. The same for the same questions in another format.
        total_bytes: Size of all questions that can be used, in bytes as they stand in the file.
        place: What the questions are counted in.
        file_id: Tells whether the file is still the one that was checked.
        duplicates: Index of a question whose id belongs to another -> the line of that other.
    """

    count: int
    invalid: int
    fingerprint: str
    total_bytes: int
    place: Place
    file_id: FileId
    duplicates: Mapping[int, int]


def read_questions(path: Path, limits: ReadingLimits) -> Iterator[Asked | Invalid]:
    """Read a file as it stands, question by question, in its order; repeated ids are not noticed.

    Raises:
        UsageError: The file cannot be read (on the first question), or holds none (at the end).
    """
    return (question for question, _ in _read(path, limits))


def check_questions(path: Path, limits: ReadingLimits, *, skip_invalid: bool = False) -> Checked:
    """Go through a whole file.

    Args:
        path: The file; must not change meanwhile.
        limits: Must be the same in `read_checked`.
        skip_invalid: Only count the questions that cannot be used.

    Raises:
        UsageError: The file cannot be read, holds no question, changed meanwhile, or has far too many repeated ids; or questions in it cannot
            be used and `skip_invalid` is off, with the first of them by line.
    """
    file_id, place = identify(path), find_place(path)
    first_problems: list[Invalid] = []
    count = invalid = total_bytes = 0
    fingerprint = blake2b(digest_size=16)
    with DuplicateFinder() as ids:
        for question, size in _read(path, limits):
            usable = isinstance(question, Asked)
            if isinstance(question, Invalid):
                invalid += 1
                if len(first_problems) < _MOST_PROBLEMS_SHOWN:
                    first_problems.append(question)
            fingerprint.update(_in_fingerprint(question))
            ids.add(question.request_id, question.index, question.line, invalid=not usable)
            count += 1
            total_bytes += size
        duplicates = ids.duplicates()
    _ensure_unchanged(path, file_id)
    good_duplicates = [duplicate for duplicate in duplicates if not duplicate.invalid]
    invalid += len(good_duplicates)
    if invalid and not skip_invalid:
        first_problems += [_as_invalid(duplicate.index, duplicate.line, duplicate.keeper_line, place) for duplicate in good_duplicates]
        raise UsageError(_report(path, place, first_problems, invalid, count))
    taken = {duplicate.index: duplicate.keeper_line for duplicate in duplicates}
    return Checked(count, invalid, fingerprint.hexdigest(), total_bytes, place, file_id, taken)


def read_checked(path: Path, limits: ReadingLimits, checked: Checked) -> Iterator[Asked | Invalid]:
    """Read a file that has been checked: `checked.count` questions in the order of the file, no two with the same id.

    Raises:
        UsageError: The file is not the one that was checked: on the first question, or as soon as it shows. Also as `read_questions` does.
    """
    _ensure_unchanged(path, checked.file_id)
    count = 0
    for question, _ in _read(path, limits):
        if count == checked.count:
            break
        count += 1
        keeper_line = checked.duplicates.get(question.index)
        if keeper_line is None:
            yield question
        elif isinstance(question, Asked):
            yield _as_invalid(question.index, question.line, keeper_line, checked.place)
        else:
            yield replace(question, request_id=invalid_id(question.line))
    _ensure_unchanged(path, checked.file_id)
    if count != checked.count:
        raise _changed(path)


def _read(path: Path, limits: ReadingLimits) -> Iterator[tuple[Asked | Invalid, int]]:
    """Questions, each with its size in bytes; 0 if it could not be read at all."""
    index = -1
    for index, (line, entry) in enumerate(read_entries(path, limits.max_question_bytes)):
        if isinstance(entry, Unreadable):
            yield Invalid(index, line, invalid_id(line), entry.reason), 0
        else:
            yield ask(entry, index, line), len(entry)
    if index < 0:
        msg = f"{path}: there is no question in it"
        raise UsageError(msg)


def _in_fingerprint(question: Asked | Invalid) -> bytes:
    # The id as JSON ends where its quotes do, so that no id can run into the content behind it.
    request_id = orjson.dumps(question.request_id)
    return request_id + canonical(question) if isinstance(question, Asked) else request_id


def _as_invalid(index: int, line: int, keeper_line: int, place: Place) -> Invalid:
    return Invalid(index, line, invalid_id(line), f"its id is already that of {place} {keeper_line}; give each question an id of its own, or none")


def _report(path: Path, place: Place, problems: list[Invalid], invalid: int, count: int) -> str:
    """Tell what is wrong with a file: one sentence, then a line for each of the first problems."""
    shown = sorted(problems, key=lambda problem: problem.line)[:_MOST_PROBLEMS_SHOWN]
    where = f"{path}:" if place == "line" else f"{path}: element "
    lines = [f"{path}: {invalid} of {count} questions cannot be used"]
    lines += [f"{where}{problem.line}: {problem.reason}" for problem in shown]
    if invalid > len(shown):
        lines.append(f"... and {invalid - len(shown)} more")
    lines.append("Nothing was submitted. Correct the file, or let --skip-invalid turn these into failure records.")
    return "\n".join(lines)


def _ensure_unchanged(path: Path, file_id: FileId) -> None:
    if identify(path) != file_id:
        raise _changed(path)


def _changed(path: Path) -> UsageError:
    return UsageError(f"{path}: it changed while it was read; run the command again when nothing writes to it any more")
