"""Whatever a model writes, something sensible comes of it; and the statistics are those of the books."""

from __future__ import annotations

import string
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfleet.scoring.answer_keys import Options
from batchfleet.scoring.choice import choose
from batchfleet.scoring.final_number import calculate
from batchfleet.scoring.numbers import Number, agree, numbers_in, written
from batchfleet.scoring.statistics import mcnemar, paired_difference, wilson

OPTIONS = Options(("A", "B", "C", "D"), ("joule", "watt", "pascal", "newton"))
PIECES = st.sampled_from(
    [
        "The answer is ",
        "A",
        "B",
        " or ",
        "wait, ",
        "\n",
        "**",
        "(",
        ")",
        "\\boxed{",
        "}",
        "12",
        "-3",
        "1/0",
        " = ",
        "%",
        "{",
        '"answer": ',
        "#### ",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join))


@given(TEXTS, st.booleans())
def test_any_text_gives_a_value_or_a_reason(text: str, is_truncated: bool) -> None:  # noqa: FBT001 (hypothesis passes it)
    """Never an exception, never both, and only labels that can be chosen."""
    for found in (choose(text, OPTIONS, is_truncated=is_truncated), calculate(text, is_truncated=is_truncated)):
        assert (found.value is None) != (found.missing is None)
        assert not isinstance(found.value, str) or found.value in OPTIONS.labels


@given(st.text(alphabet=string.ascii_letters + " .,:()*\n"))
def test_a_text_without_digits_or_number_words_has_no_number(text: str) -> None:
    """Nothing is read into it."""
    found = calculate(text)

    assert found.value is None or found.rule in ("stated", "in words")


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_a_number_survives_being_written(digits: int, places: int) -> None:
    """With and without groups of thousands."""
    value = Fraction(digits, 10**places)

    assert next(numbers_in(written(value))).value == value
    assert next(numbers_in(f"{digits:,}")).value == digits


@pytest.mark.parametrize(
    "text",
    [
        "A) to the right\nB) to the left",
        "A) the best answer\nB) no answer\nC) the result",
        "A. all that I think\nB. so it is",
        "**A)** Wait, no\n\n**B)** yes",
        "Neither A nor B is correct.",
    ],
)
def test_no_statement_crosses_a_line_that_begins_as_an_option(text: str) -> None:
    """Also where only the letters are known, so that a list cannot be told from an answer by its texts."""
    assert choose(text, Options(tuple("ABCDEFGHIJ"))).value is None


def test_a_refusal_within_the_question_is_none() -> None:
    """Whoever quotes a part of it refuses nothing; whoever answers so does."""
    question = "I cannot lift the box, and I do not know its mass. What is it in kg, if 3 boxes weigh 12 kg?"

    quoted = calculate("You say: I cannot lift the box, and I do not know its mass. Well: 4", question=question)
    refused = calculate("I cannot lift the box either, with its 3 handles.", question=question)

    assert str(quoted.value) == "4"
    assert refused.missing == "refused"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[THINK]The answer is A.[/THINK]D", "D"),
        ("<thinking>B or C?</thinking>\nD", "D"),
        ("<|channel|>analysis<|message|>The answer is A.<|end|><|start|>assistant<|channel|>final<|message|>D", "D"),
        ("[THINK]The answer is A.", None),
    ],
)
def test_reasoning_is_no_answer(text: str, value: str | None) -> None:
    """In the marks of the models that write it into their text."""
    assert choose(text, OPTIONS).value == value


@pytest.mark.parametrize(
    ("found", "key", "is_same"),
    [
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("0.5", "50%", True),
        ("50%", "50%", True),
        ("50%", "5", False),
        ("0.33", "1/3", False),
    ],
)
def test_percentages_agree_by_figure_or_value(found: str, key: str, is_same: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """As people mean them."""
    one, other = next(numbers_in(found)), next(numbers_in(key))

    assert agree(one, other) is is_same


def test_a_tolerance_is_a_part_of_the_known_number() -> None:
    """One in a hundred here; none unless it is asked for."""
    near, far, key = Number(Fraction(99)), Number(Fraction(98)), Number(Fraction(100))

    assert agree(near, key, 0.01)
    assert not agree(far, key, 0.01)
    assert not agree(near, key)


def test_long_answers_cost_little() -> None:
    """Four times the characters that begin a rule over and over cost about four times as much, not sixteen.

    Counted in this process' own seconds.
    """

    def cost_s(text: str) -> float:
        began = time.process_time()
        choose(text, OPTIONS)
        calculate(text)
        return time.process_time() - began

    for piece in (
        "answer ",
        "so it is ",
        "1,234",
        "\\boxed{",
        "{",
        "wait, no, ",
        "A) ",
        "correct option ",
        "1 1/",
        "( ",
        "not ",
    ):
        short, long = (piece * (count // len(piece)) for count in (20_000, 80_000))

        assert cost_s(long) < 10 * cost_s(short) + 0.1, piece


def test_intervals_are_those_of_the_books() -> None:
    """Wilson's for 81 of 263 (Newcombe 1998, table I); it never leaves 0 to 1."""
    low, high = wilson(81, 263)

    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 10)[0] == 0.0


def test_a_difference_is_judged_by_the_questions_on_which_two_differ() -> None:
    """McNemar's exact test is a coin for each of them: 1 of 10 has 2 * 11 / 1024."""
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5000, 5200) == pytest.approx(0.0488, abs=2e-4)
    low, high = paired_difference(10, 30, 100)
    assert low < 0.2 < high
    assert low > 0
