"""The example files: reproducible, readable, and bad only where they should be."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

from producer.options import ReadingLimits
from producer.questions.question_file import Invalid, ParsedQuestion, check_questions, read_checked
from tests.builders import a_source
from wire.errors import UsageError

EXAMPLES = Path(__file__).parents[3] / "examples"
LIMITS = ReadingLimits()


@pytest.mark.parametrize("name", ["science.jsonl", "science.json", "bad.jsonl"])
def test_an_example_file_is_what_the_script_writes(tmp_path: Path, name: str) -> None:
    """Nobody edits the result instead of the source."""
    runpy.run_path(str(EXAMPLES / "make_examples.py"))["write_examples"](tmp_path)

    assert (EXAMPLES / name).read_bytes() == (tmp_path / name).read_bytes()


def test_both_science_files_ask_the_same() -> None:
    """They differ in ids and in the subject, which only the lines have."""
    first, second = (
        list(read_checked(a_source(path), LIMITS, check_questions(a_source(path), LIMITS)))
        for path in (EXAMPLES / "science.jsonl", EXAMPLES / "science.json")
    )

    assert [question.prompt for question in first if isinstance(question, ParsedQuestion)] == [
        question.prompt for question in second if isinstance(question, ParsedQuestion)
    ]
    assert len(first) == len(second) == 310


def test_every_science_question_has_an_answer_among_its_options() -> None:
    """And no letter is right so often that guessing it pays."""
    questions = [json.loads(line) for line in (EXAMPLES / "science.jsonl").read_text(encoding="utf-8").splitlines()]

    letters = Counter(question["answer"] for question in questions)

    assert all(f"\n{question['answer']}) " in question["question"] for question in questions)
    assert len({question["question"] for question in questions}) == len(questions)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 0.32 * len(questions)


def test_every_bad_line_is_found_and_the_good_ones_survive() -> None:
    """The first and the last line are good; each line between them has a reason of its own kind."""
    path = EXAMPLES / "bad.jsonl"
    with pytest.raises(UsageError, match="29 of 31 questions cannot be used"):
        check_questions(a_source(path), LIMITS)

    found = list(read_checked(a_source(path), LIMITS, check_questions(a_source(path), LIMITS, skip_invalid=True)))

    assert [question.request_id for question in found if isinstance(question, ParsedQuestion)] == ["good-1", "good-2"]
    reasons = [question.reason for question in found if isinstance(question, Invalid)]
    assert len(set(reasons)) == len(reasons) == 29
