"""Questions with known answers, each with its line of every answers file.

They come in the order of the questions, and take bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.answers.reader import Questions, opened_lines
from producer.questions.question_parser import Invalid, ParsedQuestion
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
        UsageError: A file of answers cannot be read, is empty, or answers other questions or one of them twice.
    """
    with ExitStack() as closing:
        lines = [closing.enter_context(closing.enter_context(opened_lines(file)).in_order(questions)) for file in files]
        heads = [next(answers, None) for answers in lines]
        if None in heads:
            msg = f"{files[heads.index(None)]}: there is no answer in it"
            raise UsageError(msg)
        for asked in questions():
            found: list[dict[str, Any] | None] = []
            for number, head in enumerate(heads):
                if head is not None and head.index == asked.index:
                    found.append(head.fields)
                    heads[number] = next(lines[number], None)
                else:
                    found.append(None)
            yield Joined(asked, tuple(found))
