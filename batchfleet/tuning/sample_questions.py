"""Questions of the size of those in GSM8K, made from a seed.

No data set has to be there, and everybody measures with the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import orjson

from producer.options import ReadingLimits
from producer.questions.question_file import ParsedQuestion, Source, read_questions
from wire.errors import UsageError

MEDIAN_CHARS, SPREAD, SHORTEST, LONGEST = 222, 0.4, 73, 848
"""The 1 319 problems of GSM8K's test set have 73 to 848 characters, median 222, mean 240, standard deviation 98."""

_NAMES = (
    "Ada",
    "Ben",
    "Carla",
    "Dmitri",
    "Elif",
    "Femi",
    "Grace",
    "Hiro",
    "Ines",
    "Jonas",
    "Kemal",
    "Lucia",
    "Mona",
    "Nils",
    "Olga",
    "Priya",
)
_THINGS = (
    "apples",
    "boxes",
    "candles",
    "desks",
    "eggs",
    "flowers",
    "games",
    "hats",
    "jars",
    "keys",
    "lamps",
    "marbles",
    "notebooks",
    "oranges",
    "pens",
)
_SENTENCES = (
    "{name} buys {a} {thing} for ${b} each on {c} days of the week.",
    "{name} has {a} {thing} and gives {b} of them to {other}.",
    "Every hour {other} packs {a} {thing}, but one in {c} is broken and has to be thrown away.",
    "The price of the {thing} rises by {a} percent, and then falls by ${c}.",
    "It takes {name} {a} minutes to carry {c} {thing} home.",
)
_HALF_A_SENTENCE = 32
_ENDS = (
    "How many {thing} are left?",
    "How much does {name} pay in all?",
    "How many {thing} does {other} have in the end?",
)


def make_questions(count: int, seed: int) -> Iterator[str]:
    """Texts of word problems, all different, with the lengths of GSM8K's.

    They need not make sense: nobody answers them.
    """
    draw = random.Random(seed)  # noqa: S311 (not for secrets)
    for number in range(count):
        words = {"name": draw.choice(_NAMES), "other": draw.choice(_NAMES), "thing": draw.choice(_THINGS)}
        length = min(max(MEDIAN_CHARS * draw.lognormvariate(0, SPREAD), SHORTEST), LONGEST)
        end = f" {draw.choice(_ENDS).format(**words)} ({number})"
        text = ""
        while not text or len(text) + len(end) + _HALF_A_SENTENCE < length:
            figures = {name: draw.randint(2, 99) for name in "abc"}
            text += draw.choice(_SENTENCES).format(**words, **figures) + " "
        yield text.rstrip() + end


def write_questions(path: Path, count: int, seed: int, source: Path | None = None) -> None:
    """Write `count` questions with ids, made from a seed or, over and over, from the questions of a file."""
    texts = make_questions(count, seed) if source is None else texts_of(source, count)
    with path.open("wb") as file:
        for number, text in enumerate(texts):
            file.write(orjson.dumps({"id": f"q{number}", "question": text}) + b"\n")


def texts_of(source: Path, count: int) -> Iterator[str]:
    """The questions of a file, repeated as often as needed; no two are the same."""
    return islice(_repeated(source), count)


def _repeated(source: Path) -> Iterator[str]:
    """The questions of a file, then again, each round with its number so that no two are the same."""
    texts = [
        asked.prompt
        for asked in read_questions(Source((source,)), ReadingLimits())
        if isinstance(asked, ParsedQuestion) and asked.prompt
    ]
    if not texts:
        raise UsageError(f"{source} has no question in plain text")
    for number, text in enumerate(cycle(texts)):
        lap = number // len(texts)
        yield f"{text} ({lap})" if lap else text
