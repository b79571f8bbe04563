"""What a run of a file is, and what an earlier attempt has left of it on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from producer.answers.answers_file import AnswersFile
from producer.answers.sidecar import IDS_OF_ROWS
from producer.options import ReadingLimits
from producer.questions.checked import Checked
from producer.questions.duplicates import positions_answered
from producer.questions.question_file import Source, Tick, read_checked, ticked
from producer.questions.row_keys import RowKeys
from producer.questions.row_marks import RowMarks, first_difference
from producer.run_tally import RunTally
from wire.errors import UsageError


@dataclass(frozen=True, slots=True)
class FileRun:
    """What is to be run.

    Attributes:
        run: Its id.
        questions: The files, which `checked` was made of.
        default_model: For questions that name none.
        fingerprint: What was asked, of which model, with which parameters, each part by itself so that a difference can
            be named.
        begun_with: The fingerprint that the answers file has, where failed questions are asked again with other
            parameters; empty for the same.
        command: The command that asks this, to be kept for those that come back to it; empty if nobody will.
        keys: Those of the rows; None if nobody will look for these in another file.
    """

    run: str
    questions: Source
    checked: Checked
    reading: ReadingLimits
    default_model: str
    fingerprint: dict[str, str]
    begun_with: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    keys: RowKeys | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What is to be known of it later, beside run and fingerprint."""
        return {
            "ids": "as asked" if self.questions.shape.ids_as_asked else IDS_OF_ROWS,
            "marks": self.checked.marks.as_json(),
            **({"command": self.command} if self.command else {}),
        }


@dataclass(frozen=True, slots=True)
class ResumeState:
    """What is there already.

    Attributes:
        written: One bit per question, in Redis' order, set if the answers file has its line.
        tally: Begun with those lines.
    """

    written: bytearray
    tally: RunTally

    @property
    def is_complete(self) -> bool:
        """Whether every question has its line."""
        return self.tally.on_disk == self.tally.questions


def take_stock(what: FileRun, answers: AnswersFile, tick: Tick = lambda _: None) -> ResumeState:
    """Make the answers file that of this run, and take in what an earlier attempt left in it. Redis is not asked.

    Raises:
        UsageError: The file is another run's, or is damaged.
    """
    answers.claim(what.run, what.begun_with or what.fingerprint, what.about, lambda stored: _changed_row(what, stored))
    if what.keys is not None:
        answers.key_of = what.keys.of
    tally = RunTally(what.checked.count)
    if not answers.size():
        return ResumeState(bytearray((what.checked.count + 7) // 8), tally)
    asked = ticked(read_checked(what.questions, what.reading, what.checked), tick)
    questions = ((question.request_id, question.index) for question in asked)
    found = positions_answered(questions, _count_ids(answers, tally))
    if found.unknown:
        (line, *_) = answers.lines_of(found.unknown[0])
        raise UsageError(
            f"{answers.path}:{line}: its id {found.unknown[0]!r} belongs to no question; remove the line, or choose "
            "another -o"
        )
    if found.repeated:
        line, other = answers.lines_of(found.repeated_id)
        more = f" ({found.repeated} such ids)" if found.repeated > 1 else ""
        raise UsageError(
            f"{answers.path}:{other}: its id {found.repeated_id!r} is that of line {line} already{more}; remove one of "
            "them, or choose another -o"
        )
    tally.resumed = tally.on_disk
    return ResumeState(found.bitmap, tally)


def _changed_row(what: FileRun, stored: dict[str, Any]) -> str:
    """Names the first question that is not what it was, or says how many there were."""
    then, now = RowMarks.of(stored.get("marks")), what.checked.marks
    if then is None:
        return f"other questions, {stored['fingerprint'].get('count')} then, {now.count} now"
    first, last = first_difference(then, now)
    counts = "" if then.count == now.count else f" ({then.count} questions then, {now.count} now)"
    if first > min(then.count, now.count):
        return (
            f"the first {first - 1} questions are the same, the others were "
            f"{'added' if now.count > then.count else 'taken out'} since{counts}"
        )
    if last > first:
        return f"one of the questions {first} to {last} is not what it was{counts}"
    found = next(
        question
        for question in read_checked(what.questions, what.reading, what.checked)
        if question.index == (first - 1) * what.checked.samples
    )
    place = f"{what.questions.files[found.file]}, {what.checked.forms[found.file].place} {found.line}"
    return f"question {first} ({place}, id {found.request_id!r}) is not what it was{counts}"


def _count_ids(answers: AnswersFile, tally: RunTally) -> Iterator[str]:
    for _, _, fields in answers.lines():
        if fields.get("removed"):
            continue
        answered = fields["status"] == "answered"
        tally.on_disk += 1
        tally.answered += answered
        tally.failed += not answered
        # Nothing where an editor has made something else of it.
        usage = fields.get("usage")
        counts = [usage.get(f"{name}_tokens") for name in ("prompt", "completion")] if isinstance(usage, dict) else []
        tally.tokens_before += sum(count for count in counts if isinstance(count, int))
        yield fields["id"]
