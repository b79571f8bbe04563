"""Counts of one answers file against the key. What was not answered stays in the denominator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from batchfleet.scoring.statistics import mcnemar, paired_difference, wilson

Outcome = Literal["right", "wrong", "unclear", "failed", "unanswered"]


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer, scored; or what most samples of a question say.

    Attributes:
        value: What was extracted, as text; None if nothing was.
        rule: Of docs/scoring.md; empty where there was no text.
        why: Why nothing was extracted, or the kind of the failure.
        samples: Of the question, in their order; empty if it was asked once.
    """

    outcome: Outcome
    value: str | None = None
    rule: str = ""
    why: str = ""
    samples: tuple[Scored, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        found = {"outcome": self.outcome, "value": self.value, "rule": self.rule or None, "why": self.why or None}
        return {**found, "samples": [sample.as_dict() for sample in self.samples]} if self.samples else found


@dataclass(slots=True)
class ScoreTally:
    """Questions by what became of them.

    Attributes:
        outcomes: Each question that has a known answer, once.
        unclear: Why answers say nothing that could be compared, by `Extraction.missing`.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    unclear: Counter[str] = field(default_factory=Counter)

    @property
    def questions(self) -> int:
        return self.outcomes.total()

    @property
    def answered(self) -> int:
        return self.outcomes["right"] + self.outcomes["wrong"] + self.outcomes["unclear"]

    @property
    def accuracy(self) -> float:
        return self.outcomes["right"] / self.questions if self.questions else 0.0

    def as_dict(self) -> dict[str, Any]:
        low, high = wilson(self.outcomes["right"], self.questions)
        of_answered = self.outcomes["right"] / self.answered if self.answered else None
        counts = {name: self.outcomes[name] for name in ("right", "wrong", "unclear", "failed", "unanswered")}
        return {
            "questions": self.questions,
            "accuracy": round(self.accuracy, 6),
            "interval_95": [round(low, 6), round(high, 6)],
            **counts,
            "unclear_because": dict(sorted(self.unclear.items())),
            "accuracy_of_answered": None if of_answered is None else round(of_answered, 6),
        }


@dataclass(slots=True)
class Pair:
    """Two answers files on the same questions."""

    questions: int = 0
    both: int = 0
    only_first: int = 0
    only_second: int = 0

    def count(self, *, first: bool, second: bool) -> None:
        self.questions += 1
        self.both += first and second
        self.only_first += first and not second
        self.only_second += second and not first

    @property
    def p_value(self) -> float:
        return mcnemar(self.only_first, self.only_second)

    def as_dict(self) -> dict[str, Any]:
        low, high = paired_difference(self.only_first, self.only_second, self.questions)
        difference = (self.only_second - self.only_first) / self.questions if self.questions else 0.0
        return {
            "difference": round(difference, 6),
            "interval_95": [round(low, 6), round(high, 6)],
            "both_right": self.both,
            "only_first_right": self.only_first,
            "only_second_right": self.only_second,
            "p_value": float(f"{self.p_value:.4g}"),
        }
