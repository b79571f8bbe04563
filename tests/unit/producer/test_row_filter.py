"""`--where`, and answers of one run as the questions of the next."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from producer.options import ReadingLimits
from producer.questions.column_mapping import AS_IT_STANDS, Shape
from producer.questions.question_file import read_questions
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.row_filter import RowFilter
from producer.questions.selection import EVERYTHING, Selection
from producer.questions.sources import Source
from producer.questions.templates import PromptTemplate
from wire.errors import UsageError


def asked(
    path: Path,
    rows: list[dict[str, object]],
    where: str,
    shape: Shape = AS_IT_STANDS,
    selection: Selection = EVERYTHING,
) -> list[ParsedQuestion | Invalid]:
    """The questions that a file with these rows gives."""
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return list(read_questions(Source((path,), shape, selection=selection, where=RowFilter(where)), ReadingLimits()))


def test_only_rows_that_fulfil_the_condition_are_asked(tmp_path: Path) -> None:
    """Ids that are derived are those of the whole file, and a limit counts what passes."""
    rows: list[dict[str, object]] = [{"question": str(n), "answer": n} for n in range(10)]

    found = asked(tmp_path / "q.jsonl", rows, "answer % 2 == 1", selection=Selection(limit=3))

    assert [(one.index, one.request_id[:8]) for one in found] == [(0, "0000002-"), (1, "0000004-"), (2, "0000006-")]


def test_a_row_without_the_field_cannot_be_used(tmp_path: Path) -> None:
    """It is named, never passed over: a slip in the condition must not shrink a run."""
    (found,) = asked(tmp_path / "q.jsonl", [{"question": "a"}], "status == 'answered'")

    assert isinstance(found, Invalid)
    assert "'status' is undefined; the fields are question" in found.reason


def test_what_is_no_condition_is_refused() -> None:
    """Before anything is read."""
    with pytest.raises(UsageError, match="--where status ="):
        RowFilter("status = 1")


def test_answers_are_the_questions_of_the_next_run(tmp_path: Path) -> None:
    """Under their ids and with their metadata; the model and the parameters are those of the run that asks."""
    line: dict[str, object] = {
        "id": "q1", "status": "answered", "text": "4", "finish_reason": "stop", "model": "small",
        "params": {"temperature": 1.0}, "attempts": 1, "metadata": {"answer": 5, "previous": {"text": "3"}},
    }  # fmt: skip
    shape = Shape(template=PromptTemplate("Is {{ text }} = {{ metadata.answer }}, {{ model }}?"))

    (found,) = asked(tmp_path / "a.jsonl", [line, {**line, "status": "failed"}], "status == 'answered'", shape)

    assert isinstance(found, ParsedQuestion)
    assert (found.request_id, found.prompt, found.model, found.params) == ("q1", "Is 4 = 5, small?", None, {})
    previous = {"status": "answered", "text": "4", "finish_reason": "stop", "model": "small", "previous": {"text": "3"}}
    assert found.metadata == {"answer": 5, "previous": previous}
