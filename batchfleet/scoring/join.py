"""Questions with known answers, each with its line of every answers file, in the order of the questions and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.answers.reader import Questions, in_order
from producer.questions import compression
from producer.questions.parser import Invalid, ParsedQuestion
from wire.errors import UsageError


@dataclass(frozen=True, slots=True)
class Joined:
    """A question and what became of it.

    Attributes:
        answers: What its line says, for each answers file; None where it has none.
    """

    asked: ParsedQuestion | Invalid
    answers: tuple[dict[str, Any] | None, ...]


def join(files: Sequence[Path], questions: Questions) -> Iterator[Joined]:
    """Go through all questions, those without a line too.

    Raises:
        UsageError: A file of answers cannot be read, is compressed, or answers other questions or one of them twice.
    """
    with ExitStack() as closing:
        lines = [closing.enter_context(in_order(_plain(file), questions)) for file in files]
        heads = [next(answers, None) for answers in lines]
        for asked in questions():
            found: list[dict[str, Any] | None] = []
            for number, head in enumerate(heads):
                if head is not None and head.index == asked.index:
                    found.append(head.fields)
                    heads[number] = next(lines[number], None)
                else:
                    found.append(None)
            yield Joined(asked, tuple(found))


def _plain(path: Path) -> Path:
    try:
        if compression.without_suffix(path) != path:
            msg = f"{path}: answers are looked up in their file, which must not be compressed; unpack it first"
            raise UsageError(msg)
        if path.stat().st_size == 0:
            msg = f"{path}: there is no answer in it"
            raise UsageError(msg)
    except OSError as error:
        msg = f"{path}: it cannot be read ({error.strerror})"
        raise UsageError(msg) from None
    return path
