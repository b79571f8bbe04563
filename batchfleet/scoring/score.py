"""Scores answers files against questions with known answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from batchfleet.scoring.answer_keys import ChoiceKey, Key, key_of, text_of
from batchfleet.scoring.choice import choose
from batchfleet.scoring.extraction import RULES_VERSION, Extraction
from batchfleet.scoring.final_number import calculate
from batchfleet.scoring.join import Joined, join
from batchfleet.scoring.numbers import Number, agree
from batchfleet.scoring.samples import SampleTally, majority
from batchfleet.scoring.tally import Pair, Scored, ScoreTally
from producer.answers.reader import Answered
from producer.options import ReadingLimits
from producer.questions.question_file import Source, check_questions, read_checked, read_questions
from producer.questions.question_parser import Invalid
from wire.errors import UsageError

MOST_GROUPS = 10_000
_LOOKED_AT_FOR_KEYS = 1000


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What is to be scored.

    Attributes:
        answers: Files of answer lines to the same questions.
        key: The questions.
        tolerance: Largest difference of numbers, as a part of the known one.
        by: Field of the metadata whose values make groups, with dots for fields within fields; None for no groups.
    """

    answers: tuple[Path, ...]
    key: Source
    limits: ReadingLimits
    tolerance: float = 0.0
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredQuestion:
    """One question, scored in every file."""

    request_id: str
    key: Key | None
    group: str
    scored: tuple[Scored, ...]

    @property
    def is_disputed(self) -> bool:
        """Whether some files have it right and others have not."""
        return len({one.outcome == "right" for one in self.scored}) > 1

    def as_dict(self, files: Sequence[Path]) -> dict[str, Any]:
        about = {
            "id": self.request_id,
            "key": None if self.key is None else str(self.key),
            "group": self.group or None,
            "rules": RULES_VERSION,
        }
        if len(self.scored) == 1:
            return {**about, **self.scored[0].as_dict()}
        return {
            **about,
            "files": [{"file": str(file), **one.as_dict()} for file, one in zip(files, self.scored, strict=True)],
        }


@dataclass(slots=True)
class Score:
    """How the files compare with the key, and with each other.

    Attributes:
        tallies, groups: For each file; groups in the order in which they were met.
        pairs: Every two files, as `itertools.combinations` has them.
        samples: For each file; of nothing where questions were asked once.
        without_key: Questions that say no right answer, or in no form that can be compared. They are not in any tally.
        kinds: Of the keys, `choice` and `number`.
    """

    tallies: list[ScoreTally]
    groups: list[dict[str, ScoreTally]]
    pairs: list[Pair]
    samples: list[SampleTally] = field(default_factory=list)
    without_key: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def score(plan: ScoringPlan, see: Callable[[ScoredQuestion], None] = lambda _: None) -> Score:
    """Score everything; `see` is told of each question that counts, in the order of the questions.

    Raises:
        UsageError: Something cannot be read, the answers are to other questions, or no question has a known answer.
    """
    checked = check_questions(plan.key, plan.limits, skip_invalid=True)
    count = len(plan.answers)
    result = Score(
        [ScoreTally() for _ in range(count)],
        [{} for _ in range(count)],
        [Pair() for _ in combinations(range(count), 2)],
        [SampleTally() for _ in range(count)],
    )
    for joined in join(plan.answers, lambda: read_checked(plan.key, plan.limits, checked)):
        line = _line(joined, plan)
        if line is None:
            result.without_key += 1
            continue
        _count(line, result, plan)
        see(line)
    if not result.kinds:
        raise UsageError(
            f"{plan.key}: no question in it has a known `answer` that is a letter, an option or a number; name the "
            "column with --answer-column"
        )
    return result


def has_keys(key: Source, limits: ReadingLimits) -> bool:
    """Whether one of the first thousand questions has a known answer."""
    return any(
        not isinstance(asked, Invalid) and key_of(asked)
        for asked, _ in zip(read_questions(key, limits), range(_LOOKED_AT_FOR_KEYS), strict=False)
    )


def extract(text: str, key: Key, *, question: str = "", is_truncated: bool = False) -> Extraction:
    """What a text says.

    Looks at what can be chosen, never at what is right: the same text gives the same for any right answer.

    Args:
        question: As it was asked, to know it again where the text repeats it.
        is_truncated: The text was cut off at its longest.
    """
    if isinstance(key, ChoiceKey):
        return choose(text, key.options, question=question, is_truncated=is_truncated)
    return calculate(text, question=question, is_truncated=is_truncated)


def is_right(extraction: Extraction, key: Key, tolerance: float = 0.0) -> bool:
    """Whether that is the known answer; numbers may differ by `tolerance`, as a part of the known one."""
    if isinstance(extraction.value, Number):
        return not isinstance(key, ChoiceKey) and agree(extraction.value, key.right, tolerance)
    return isinstance(key, ChoiceKey) and extraction.value == key.right


def _line(joined: Joined, plan: ScoringPlan) -> ScoredQuestion | None:
    """None if the question says no right answer.

    One that cannot be read was asked for an answer all the same, and got none.
    """
    asked = joined.asked
    key = None if isinstance(asked, Invalid) else key_of(asked)
    if key is None and not isinstance(asked, Invalid):
        return None
    question = "" if isinstance(asked, Invalid) else text_of(asked)
    scored = tuple(_scored_of(lines, key, question, plan.tolerance) for lines in joined.answers)
    return ScoredQuestion(asked.request_id, key, _group(joined, plan.by) if plan.by else "", scored)


def _scored_of(lines: Sequence[Answered], key: Key | None, question: str, tolerance: float) -> Scored:
    """The one answer to a question, or what most of its samples say."""
    if not lines:
        return Scored("unanswered")
    found = [_scored(line.fields, key, question, tolerance) for line in lines]
    return majority(found) if lines[-1].sample else found[0]


def _scored(answer: dict[str, Any], key: Key | None, question: str, tolerance: float) -> Scored:
    if answer["status"] == "failed" or key is None:
        error = answer.get("error")
        return Scored("failed", why=str(error.get("kind", "")) if isinstance(error, dict) else "")
    text = answer.get("text")
    found = extract(
        text if isinstance(text, str) else "",
        key,
        question=question,
        is_truncated=answer.get("finish_reason") == "length",
    )
    if found.value is None:
        return Scored("unclear", rule=found.rule, why=found.missing or "")
    return Scored("right" if is_right(found, key, tolerance) else "wrong", str(found.value), found.rule)


def _count(line: ScoredQuestion, result: Score, plan: ScoringPlan) -> None:
    if line.key is not None:
        result.kinds["choice" if isinstance(line.key, ChoiceKey) else "number"] += 1
    for number, one in enumerate(line.scored):
        result.samples[number].count(one.samples)
        for tally in _tallies(line, number, result, plan):
            tally.outcomes[one.outcome] += 1
            if one.outcome == "unclear":
                tally.unclear[one.why] += 1
    right = [one.outcome == "right" for one in line.scored]
    for pair, (first, second) in zip(result.pairs, combinations(right, 2), strict=True):
        pair.count(first=first, second=second)


def _tallies(line: ScoredQuestion, number: int, result: Score, plan: ScoringPlan) -> Iterator[ScoreTally]:
    yield result.tallies[number]
    if plan.by:
        groups = result.groups[number]
        if line.group not in groups and len(groups) == MOST_GROUPS:
            raise UsageError(
                f"--by {plan.by}: more than {MOST_GROUPS} different values; choose a field that makes groups"
            )
        yield groups.setdefault(line.group, ScoreTally())


NO_GROUP = "(none)"
"""Of questions that lack the field by which they are grouped."""


def _group(joined: Joined, by: str) -> str:
    value: Any = None if isinstance(joined.asked, Invalid) else joined.asked.metadata
    for name in by.removeprefix("metadata.").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return NO_GROUP if value is None else str(value)[:200]
