"""Known answers, in the forms that data sets have them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batchfleet.scoring.answer_keys import key_of
from producer.questions.question_parser import ParsedQuestion, QuestionParser

OPTIONS = ["joule", "watt", "newton"]


def a_question(question: str = "Which unit?", **fields: Any) -> ParsedQuestion:  # noqa: ANN401 (any field of a data set)
    """As a line of JSON Lines gives it."""
    asked = QuestionParser().ask(orjson.dumps({"question": question, **fields}), 0, 1)
    assert isinstance(asked, ParsedQuestion), asked
    return asked


@pytest.mark.parametrize(
    ("fields", "right"),
    [
        ({"answer": "C", "choices": OPTIONS}, "C"),
        ({"answer": "newton", "choices": OPTIONS}, "C"),
        ({"answer": " Newton. ", "choices": OPTIONS}, "C"),
        ({"answer": 2, "choices": OPTIONS}, "C"),
        ({"answer": "(c) newton", "options": OPTIONS}, "C"),
        ({"answer": "C", "options": {"A": "joule", "C": "newton"}}, "C"),
        ({"answer": "2", "choices": {"text": OPTIONS, "label": ["1", "2", "3"]}}, "2"),
        ({"answer": "newton", "A": "joule", "B": "newton"}, "B"),
        ({"answer": "newton", "question": "Which unit?\nA) joule\nB) newton\n\nAnswer with the letter only."}, "B"),
        ({"answer": "B", "question": "Which unit? (A) joule (B) newton"}, "B"),
        ({"answer": "4", "question": "2 + 2?\nA) 3\nB) 4"}, "B"),
        ({"answer": "D"}, "D"),
        ({"answer": True}, "true"),
        ({"answer": "No"}, "no"),
        ({"answer": "She has 3 * 14 = <<3*14=42>>42.\n#### 1,042"}, "1042"),
        ({"answer": 0.5}, "0.5"),
        ({"answer": "-7"}, "-7"),
        ({"answer": "$1,234.50"}, "1234.5"),
        ({"answer": "50%"}, "50%"),
        ({"answer": "So \\boxed{\\frac{1}{3}}."}, "1/3"),
        ({"answer": "42 km"}, "42"),
    ],
)
def test_a_known_answer_is_understood(fields: dict[str, Any], right: str) -> None:
    """Letters, options by their text or place, numbers however they are marked."""
    assert str(key_of(a_question(**fields))) == right


@pytest.mark.parametrize("answer", [None, "", "It depends on many things.", ["A"], "around 1990 people thought so"])
def test_what_cannot_be_compared_is_no_key(answer: object) -> None:
    """Better no key than a wrong one."""
    assert key_of(a_question(answer=answer)) is None
