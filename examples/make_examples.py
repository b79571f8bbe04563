# ruff: noqa: INP001 (a script that nobody imports)
"""Writes the example files beside this script: the same bytes on every run. Needs nothing but Python.

Most questions on science stand in facts.txt, written by hand. Those on arithmetic and units are computed here, answer
and all, with whole numbers and fractions, so that they are right by construction.

    python examples/make_examples.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path

HERE = Path(__file__).parent
LETTERS = "ABCD"
FACT_FIELDS = 6
VALUES_PER_TEMPLATE = 8


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question. `options` are four different texts; the first one is right."""

    subject: str
    question: str
    options: tuple[str, str, str, str]

    def __post_init__(self) -> None:
        if len(set(self.options)) != len(LETTERS):
            raise ValueError(f"{self.question}: the options are not four different ones: {self.options}")

    def shuffled(self) -> list[str]:
        """The options in an order that looks random and is always the same."""
        return sorted(self.options, key=lambda option: blake2b(f"{option}\n{self.question}".encode()).digest())

    @property
    def text(self) -> str:
        """The question as a model gets it."""
        listed = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, self.shuffled(), strict=True))
        return f"{self.question}\n\n{listed}\n\nAnswer with the letter only."

    @property
    def answer(self) -> str:
        """Letter of the right option."""
        return LETTERS[self.shuffled().index(self.options[0])]


def facts() -> Iterator[Choice]:
    """The questions of facts.txt."""
    for line in (HERE / "facts.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            subject, question, right, *wrong = (field.strip() for field in line.split(" | "))
            if len(wrong) != FACT_FIELDS - 3:
                raise ValueError(f"facts.txt: this line does not have {FACT_FIELDS} fields: {line}")
            yield Choice(subject, question, (right, wrong[0], wrong[1], wrong[2]))


def arithmetic() -> Iterator[Choice]:
    """Word problems. The wrong answers come from slips that people make, such as leaving out a step."""
    for k in range(VALUES_PER_TEMPLATE):
        yield _problem(
            (
                f"A box holds {12 + k} pencils. "
                f"There are {5 + 2 * k} full boxes, and {3 + k} pencils are taken out. How many pencils are left?"
            ),
            (12 + k) * (5 + 2 * k) - (3 + k),
            ((12 + k) * (5 + 2 * k), (12 + k) * (5 + 2 * k) + (3 + k), (12 + k) + (5 + 2 * k) - (3 + k)),
        )
        yield _problem(
            f"A train travels at {60 + 15 * k} km/h for {2 + k} hours. How many kilometers does it cover?",
            (60 + 15 * k) * (2 + k),
            ((60 + 15 * k) + (2 + k), (60 + 15 * k) * (1 + k), (60 + 15 * k) * (3 + k)),
        )
        yield _problem(
            f"Notebooks cost {2 + k} euros each. "
            f"Mia buys {4 + k} of them and pays with {(2 + k) * (4 + k) + 13} euros. How many euros does she get back?",
            13,
            ((2 + k) * (4 + k), (2 + k) + (4 + k), 13 + (2 + k)),
        )
        yield _problem(
            (
                f"A school has {200 + 100 * k} pupils. {15 + 5 * k} percent of them come by bicycle. "
                "How many pupils do not come by bicycle?"
            ),
            (200 + 100 * k) - (200 + 100 * k) * (15 + 5 * k) // 100,
            ((200 + 100 * k) * (15 + 5 * k) // 100, (200 + 100 * k) - (15 + 5 * k), (200 + 100 * k) // 2),
        )
        yield _problem(
            (
                f"Three parcels weigh {4 + k} kg, {9 + 2 * k} kg and {14 + 3 * k} kg. "
                "What is their average weight in kilograms?"
            ),
            9 + 2 * k,
            (27 + 6 * k, 10 + k, 14 + 3 * k),
        )
        yield _problem(
            (
                f"A rectangular garden is {7 + k} m wide and {11 + 3 * k} m long. "
                "How many meters of fence go once around it?"
            ),
            2 * ((7 + k) + (11 + 3 * k)),
            ((7 + k) * (11 + 3 * k), (7 + k) + (11 + 3 * k), 4 * (7 + k)),
        )
        yield _problem(
            f"A machine makes {3 + k} parts in one minute. It runs for {2 + k} hours and stands still for {10 + k} "
            "minutes of that time. "
            "How many parts does it make?",
            (3 + k) * ((2 + k) * 60 - (10 + k)),
            ((3 + k) * (2 + k) * 60, (3 + k) * ((2 + k) * 60 + (10 + k)), (3 + k) * (2 + k)),
        )
        yield _problem(
            f"Ada and Ben share {5 * (12 + 4 * k)} stamps in the ratio 3 to 2. How many stamps does Ada get?",
            3 * (12 + 4 * k),
            (2 * (12 + 4 * k), 12 + 4 * k, 5 * (12 + 4 * k)),
        )
        yield _problem(
            f"A tank holds {500 + 50 * k} liters. Every minute {12 + k} liters run out and {4 + k} liters run in. "
            f"How many liters are in it after {10 + 2 * k} minutes?",
            (500 + 50 * k) - 8 * (10 + 2 * k),
            ((500 + 50 * k) - (12 + k) * (10 + 2 * k), (500 + 50 * k) + 8 * (10 + 2 * k), (500 + 50 * k) - 8),
        )
        yield _problem(
            f"Tom is {8 + k} years old. His mother is 3 times as old as he is. How old will she be in {6 + k} years?",
            3 * (8 + k) + (6 + k),
            (3 * ((8 + k) + (6 + k)), 3 * (8 + k), (8 + k) + (6 + k) + 3),
        )


def _problem(question: str, right: int, slips: tuple[int, int, int]) -> Choice:
    return Choice(
        "arithmetic",
        question,
        _with_wrong(str(right), [str(slip) for slip in slips], [str(right + step) for step in (10, 1, 2)]),
    )


CONVERSIONS: tuple[tuple[str, str, Fraction, tuple[int, ...]], ...] = (
    ("kilometers", "meters", Fraction(1000), (3, 7, 12, 45, 80, 120, 250)),
    ("centimeters", "meters", Fraction(1, 100), (5, 35, 80, 175, 250, 640, 1200)),
    ("inches", "centimeters", Fraction(254, 100), (2, 5, 10, 12, 24, 36, 100)),
    ("miles", "meters", Fraction(1_609_344, 1000), (2, 3, 5, 10, 26, 50, 100)),
    ("kilograms", "grams", Fraction(1000), (2, 6, 9, 15, 32, 75, 140)),
    ("milligrams", "grams", Fraction(1, 1000), (5, 50, 125, 250, 800, 1500, 4200)),
    ("hours", "seconds", Fraction(3600), (2, 3, 5, 8, 10, 12, 24)),
    ("minutes", "hours", Fraction(1, 60), (30, 90, 120, 150, 210, 240, 360)),
    ("meters per second", "kilometers per hour", Fraction(36, 10), (5, 10, 15, 20, 25, 40, 100)),
    ("liters", "cubic centimeters", Fraction(1000), (2, 4, 6, 11, 18, 60, 95)),
    ("hectares", "square meters", Fraction(10_000), (2, 3, 8, 14, 25, 70, 160)),
    ("kilowatt-hours", "megajoules", Fraction(36, 10), (2, 4, 5, 9, 30, 50, 200)),
)
"""From, to, how many of `to` are one of `from` (exactly), values."""

CELSIUS = (-40, -10, 0, 15, 25, 60, 100)


def units() -> Iterator[Choice]:
    """Conversions between units. The wrong answers are a power of ten off, or forget the factor."""
    for source, target, factor, values in CONVERSIONS:
        for value in values:
            right = value * factor
            slips = [right * 10, right / 10, Fraction(value) if right != value else right * 2]
            wrong = [_decimal(slip) for slip in slips]
            yield Choice(
                "units",
                f"How many {target} are {value} {source}?",
                _with_wrong(_decimal(right), wrong, [_decimal(right * 100)]),
            )
    for value in CELSIUS:
        # The usual slips: the offset left out, the fraction turned round, the offset taken off.
        right = Fraction(value * 9, 5) + 32
        slips = [Fraction(value * 9, 5), Fraction(value * 5, 9).limit_denominator(1) + 32, Fraction(value * 9, 5) - 32]
        wrong = [f"{_decimal(slip)} °F" for slip in slips]
        spare = [f"{_decimal(right + step)} °F" for step in (10, 20, -10)]
        yield Choice(
            "units",
            f"Which temperature in degrees Fahrenheit is {value} °C?",
            _with_wrong(f"{_decimal(right)} °F", wrong, spare),
        )


def _with_wrong(right: str, wrong: list[str], spare: list[str]) -> tuple[str, str, str, str]:
    """The right answer and three wrong ones.

    Where a slip happens to lead to an answer that is there already, a spare one takes its place.
    """
    first, second, third, fourth, *_ = dict.fromkeys([right, *wrong, *spare])
    return first, second, third, fourth


def _decimal(value: Fraction) -> str:
    text = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    if Fraction(text) != value:
        raise ValueError(f"{value} has no exact decimal form")
    return text.rstrip("0").rstrip(".") if "." in text else text


BAD_LINES: tuple[bytes, ...] = (
    b'{"id": "good-1", "question": "What is 2 + 3? Answer with a number only.", "answer": "5"}',
    b'{"id": "not-closed", "question": "What is 2 + 2?"',
    b"What is 2 + 2?",
    b'["What is 2 + 2?"]',
    b'{"id": "not-utf-8", "question": "What is a caf\xe9?"}',
    b'{"id": "half-a-surrogate-pair", "question": "What is \\ud83d?"}',
    b'{"id": "not-a-number", "question": "What is 2 + 2?", "params": {"temperature": NaN}}',
    b'{"id": "huge-integer", "question": "What is 2 + 2?", "params": {"seed": 123456789012345678901234567890}}',
    b'{"id": "too-deep", "question": "What is 2 + 2?", "metadata": {"list": ' + b"[" * 120 + b"]" * 120 + b"}}",
    b'{"id": "nothing-asked"}',
    b'{"id": "empty", "question": ""}',
    b'{"id": "blank", "prompt": " \\n "}',
    b'{"id": "no-text", "question": 4}',
    b'{"id": "asked-twice", "prompt": "What is 2 + 2?", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}',
    b'{"id": "misspelled", "question": "What is 2 + 2?", "modle": "any"}',
    b'{"id": "misplaced", "question": "What is 2 + 2?", "temperature": 0.5}',
    b'{"id": true, "question": "What is 2 + 2?"}',
    b'{"id": "", "question": "What is 2 + 2?"}',
    b'{"id": "invalid-line-1", "question": "What is 2 + 2?"}',
    b'{"id": "no-messages", "messages": []}',
    b'{"id": "no-role", "messages": [{"content": "What is 2 + 2?"}]}',
    b'{"id": "no-content", "messages": [{"role": "user"}]}',
    b'{"id": "model-is-no-text", "question": "What is 2 + 2?", "model": 7}',
    b'{"id": "params-are-no-object", "question": "What is 2 + 2?", "params": "temperature=0"}',
    b'{"id": "priority-too-high", "question": "What is 2 + 2?", "priority": 10}',
    b'{"id": "deadline-over", "question": "What is 2 + 2?", "deadline_s": 0}',
    b'{"id": "metadata-is-no-object", "question": "What is 2 + 2?", "metadata": ["page 7"]}',
    (
        b'{"custom_id": "other-endpoint", "method": "POST", "url": "/v1/images", '
        b'"body": {"model": "any", "input": "What is 2 + 2?"}}'
    ),
    b'{"custom_id": "body-asks-nothing", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "any"}}',
    b'{"id": "good-1", "question": "What is 3 + 4? This line has the id of the first one."}',
    b'{"id": "good-2", "question": "What is 3 + 4? Answer with a number only.", "answer": "7"}',
)
"""Every kind of mistake that a line can hold, between two good ones.

Only a line that is too long is not here: it would be a megabyte.
"""


def write_examples(folder: Path) -> None:
    """Write all example files into a folder that exists."""
    choices = [*facts(), *arithmetic(), *units()]
    numbers: Counter[str] = Counter()
    named, plain = [], []
    for choice in choices:
        numbers[choice.subject] += 1
        request_id = f"{choice.subject}-{numbers[choice.subject]:03d}"
        named.append({"id": request_id, "question": choice.text, "answer": choice.answer, "subject": choice.subject})
        plain.append({"question": choice.text, "answer": choice.answer})
    lines = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in named)
    (folder / "science.jsonl").write_bytes(lines.encode())
    (folder / "science.json").write_bytes(json.dumps(plain, ensure_ascii=False, indent=2).encode() + b"\n")
    (folder / "bad.jsonl").write_bytes(b"".join(line + b"\n" for line in BAD_LINES))


if __name__ == "__main__":
    write_examples(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
