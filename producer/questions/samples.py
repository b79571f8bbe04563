"""Several samples of each question: the same question again and again, each time with another seed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from producer.questions.question_parser import Invalid, ParsedQuestion
from wire.messages import MAX_REQUEST_ID_CHARS

MOST_SAMPLES = 10_000
_SAMPLE_ID = re.compile(r"(.+)#([1-9]\d{0,4})", re.DOTALL)
_LONGEST_ENDING = len(f"#{MOST_SAMPLES}")


@dataclass(frozen=True, slots=True)
class Samples:
    """How often each question is asked.

    Sample 3 of question `q1` has the id `q1#3`. Its seed is that of the question, or else `first_seed`, and 2: the same
    however many samples there are, so that more of them can be asked later.

    Attributes:
        count: Of each question; 0 if it is asked once, under its own id and with whatever seed it brings.
        first_seed: Of questions that bring none.
    """

    count: int = 0
    first_seed: int = 0

    @property
    def each(self) -> int:
        """How many lines a question gets."""
        return self.count or 1

    def checked(self, question: ParsedQuestion | Invalid) -> ParsedQuestion | Invalid:
        """The question, or why there cannot be samples of it."""
        if not self.count or isinstance(question, Invalid):
            return question
        request_id, seed = question.request_id, question.params.get("seed")
        if sample_of(request_id) is not None:
            reason = f"its id {request_id!r} ends like the id of a sample; with --samples, use other ids"
        elif len(request_id) > MAX_REQUEST_ID_CHARS - _LONGEST_ENDING:
            reason = f"its id is too long for --samples, at most {MAX_REQUEST_ID_CHARS - _LONGEST_ENDING} characters"
        elif isinstance(seed, int) and seed > 2**63 - MOST_SAMPLES:
            reason = f"its seed {seed} leaves no room for those of its samples"
        elif question.task != "generate":
            reason = "its vectors would be the same each time; leave --samples out"
        else:
            return question
        return Invalid(question.index, question.line, request_id, reason, question.file)

    def of(self, question: ParsedQuestion | Invalid) -> Iterator[ParsedQuestion | Invalid]:
        """What is asked in place of a question of the file, with the indices that this takes."""
        if not self.count:
            yield question
            return
        for number in range(self.count):
            index, request_id = question.index * self.count + number, f"{question.request_id}#{number + 1}"
            if isinstance(question, Invalid):
                yield replace(question, index=index, request_id=request_id)
            else:
                own = question.params.get("seed")
                seed = (own if isinstance(own, int) else self.first_seed) + number
                yield replace(question, index=index, request_id=request_id, params={**question.params, "seed": seed})


ONCE = Samples()


def sample_of(request_id: str) -> tuple[str, int] | None:
    """The id of the question, and the number of its sample, from 1; None if that is not the id of a sample."""
    match = _SAMPLE_ID.fullmatch(request_id)
    return (match[1], int(match[2])) if match and int(match[2]) <= MOST_SAMPLES else None
