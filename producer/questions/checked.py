"""What a pass over the files of questions found, and what it says of those that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from producer.questions.formats import FileId, Form
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.row_marks import RowMarks
from producer.questions.sources import Source

MAX_PROBLEMS_SHOWN = 20

_MOST_TIMES_SAID = 3

_NOT_JSON = "it is not JSON"
"""Start of a reason that says only that (`producer.questions.fields`)."""


class ModelUse(NamedTuple):
    """Questions that name the same model, or none.

    It holds how many they are, and where the first of them stands, such as `questions.jsonl:4`.
    """

    questions: int
    first_place: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What one pass over the files found.

    Attributes:
        rows: Questions that are read from them, unusable ones included.
        samples: How often each of these is asked.
        positions: Where these are among all questions of the files, from 0; None if they are all.
        invalid: How many of them are `Invalid` when read by `read_checked`, duplicates included.
        fingerprint: What is asked, by which ids, in which order, as 32 hexadecimal digits. The same for the same
            questions in another format.
        total_bytes: Size of all questions that can be used, in bytes as they stand in the file.
        forms: What each file is.
        file_ids: Tell whether the files are still the ones that were checked.
        duplicates: Index of a question whose id belongs to another -> the place of that other, in words.
        models: The models that questions name, up to `_MOST_MODELS`; empty text for those that name none.
        marks: By which a row that has changed since is found.
    """

    rows: int
    invalid: int
    fingerprint: str
    total_bytes: int
    forms: tuple[Form, ...]
    file_ids: tuple[FileId, ...]
    duplicates: Mapping[int, str]
    marks: RowMarks
    models: Mapping[str, ModelUse] = field(default_factory=dict)
    positions: Collection[int] | None = None
    samples: int = 1

    @property
    def count(self) -> int:
        """What is asked, each sample by itself, and what cannot be used; the indices are 0 to count - 1."""
        return self.rows * self.samples


def problem_report(source: Source, forms: Sequence[Form], problems: list[Invalid], invalid: int, count: int) -> str:
    """Tell what is wrong with the files: one sentence, then a line for each of the first problems.

    The same words come a few times at most.
    """
    shown = list[Invalid]()
    said = Counter[str]()
    for problem in sorted(problems, key=lambda problem: (problem.file, problem.line))[:MAX_PROBLEMS_SHOWN]:
        said[problem.reason] += 1
        if said[problem.reason] <= _MOST_TIMES_SAID:
            shown.append(problem)
    lines = [f"{source}: {invalid} of {count} questions cannot be used"]
    lines += [f"{place_of(source, forms, problem)}: {problem.reason}" for problem in shown]
    if invalid > len(shown):
        lines.append(f"... and {invalid - len(shown)} more")
    if all(reason.startswith(_NOT_JSON) for reason in said):
        lines.append('A question is a line such as {"question": "Why?"}; other kinds of files are in docs/formats.md.')
    file = "file" if len(source.files) == 1 else "files"
    instead = (
        ", or let --skip-invalid turn these into failure records"
        if invalid < count
        else ", or the flags that say how to read it"
    )
    lines.append(f"Nothing was submitted. Correct the {file}{instead}.")
    return "\n".join(lines)


def place_of(source: Source, forms: Sequence[Form], question: ParsedQuestion | Invalid) -> str:
    """Where it stands: `questions.jsonl:4`, `questions.parquet: row 4`."""
    place = forms[question.file].place
    return f"{source.files[question.file]}:{'' if place == 'line' else f' {place} '}{question.line}"
