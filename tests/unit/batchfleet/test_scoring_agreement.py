"""The rules of docs/scoring.md against what a person reads in 349 answers that were written for this."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from batchfleet.scoring import answer_keys as scoring_keys
from batchfleet.scoring.answer_keys import ChoiceKey, Key, NumberKey, Options
from batchfleet.scoring.extraction import Extraction
from batchfleet.scoring.numbers import Number
from batchfleet.scoring.score import extract
from producer.questions.question_parser import ParsedQuestion, QuestionParser

HERE = Path(__file__).parents[1]
EXAMPLES = HERE.parents[1] / "examples" / "science.jsonl"
DOCS = HERE.parents[1] / "docs" / "scoring.md"


def cases(name: str) -> Iterator[dict[str, Any]]:
    """The labelled answers of one file."""
    return map(json.loads, (HERE / name).read_text(encoding="utf-8").splitlines())


def extraction(case: dict[str, Any]) -> Extraction:
    """What the rules say."""
    return extract(case["text"], key_of(case), is_truncated=case.get("finish") == "length")


def key_of(case: dict[str, Any]) -> Key:
    """A key with the options of a case; what is right does not matter to extraction."""
    if case["kind"] == "number":
        return NumberKey(Number(Fraction(0)))
    options = tuple(case["options"])
    return ChoiceKey(Options(tuple(string.ascii_uppercase[: len(options) or 10]), options), "A")


def agrees(case: dict[str, Any]) -> bool:
    """Whether rules and label say the same."""
    found, says = extraction(case).value, case["says"]
    if found is None or says is None or isinstance(found, str):
        return bool(found == says)
    return bool(found.value == Fraction(says.rstrip("%")) and found.is_percent == says.endswith("%"))


@pytest.mark.parametrize(
    ("name", "count", "agreeing"),
    [("scoring_cases.jsonl", 278, 275), ("scoring_cases_held_out.jsonl", 71, 65)],
    ids=["seen", "held out"],
)
def test_the_rules_agree_with_a_reader(name: str, count: int, agreeing: int) -> None:
    """As often as the documentation says, and where they do not, the documentation lists it.

    The labels are a person's, not the rules'.
    """
    labelled = list(cases(name))

    disagreeing = [case for case in labelled if not agrees(case)]

    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    assert (len(labelled), len(labelled) - len(disagreeing)) == (count, agreeing), [
        case["text"] for case in disagreeing
    ]
    assert f"{agreeing} of {count}" in text
    assert [case["text"] for case in disagreeing if " ".join(case["text"].split()) not in text] == []


def test_white_space_around_an_answer_says_nothing() -> None:
    """What is extracted stays the same."""
    for case in [*cases("scoring_cases.jsonl"), *cases("scoring_cases_held_out.jsonl")]:
        padded = {**case, "text": f"\n\n  {case['text']} \n"}

        assert outcome(extraction(padded)) == outcome(extraction(case)), case["text"]


def test_the_examples_score_what_was_chosen() -> None:
    """Whichever option it is, and though the answer repeats them all first: also where one ends in "to the right"."""
    for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
        asked = QuestionParser().ask(line.encode(), 0, 1)
        key = scoring_keys.key_of(asked) if isinstance(asked, ParsedQuestion) else None
        if not isinstance(key, ChoiceKey) or not isinstance(asked, ParsedQuestion):
            continue
        listed = "\n".join(
            f"{label}) {text}" for label, text in zip(key.options.labels, key.options.texts, strict=True)
        )
        for label in key.options.labels:
            for answer in (label, f"{listed}\n\n{label}", f"{asked.prompt}\n\nThe answer is {label}."):
                assert extract(answer, key, question=asked.prompt or "").value == label, (asked.request_id, answer)


def outcome(found: Extraction) -> tuple[str, str, str | None]:
    """All of an extraction, without places."""
    return str(found.value), found.rule, found.missing
