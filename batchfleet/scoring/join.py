"""Questions with known answers, each with its line of every answers file.

They come in the order of the questions, and take bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from producer.answers.reader import Answered, Questions, opened_lines
from producer.questions.question_parser import Invalid, ParsedQuestion
from wire.errors import UsageError


@dataclass(frozen=True, slots=True)
class Joined:
    """A question and what became of it.

    Attributes:
        answers: Its line, or those of its samples, for each answers file; none where it has none.
    """

    asked: ParsedQuestion | Invalid
    answers: tuple[tuple[Answered, ...], ...]


def join(files: Sequence[Path], questions: Questions) -> Iterator[Joined]:
    """Go through all questions, those without a line too.

    Raises:
        UsageError: A file of answers cannot be read, is empty, or answers other questions or one of them twice.
    """
    with ExitStack() as closing:
        lines = [closing.enter_context(closing.enter_context(opened_lines(file)).in_order(questions)) for file in files]
        heads = [next(answers, None) for answers in lines]
        if None in heads:
            raise UsageError(f"{files[heads.index(None)]}: there are no answers in it")
        for asked in questions():
            found = [list[Answered]() for _ in files]
            for number, own in enumerate(found):
                while (head := heads[number]) is not None and head.index == asked.index:
                    own.append(head)
                    heads[number] = next(lines[number], None)
            yield Joined(asked, tuple(map(tuple, found)))
