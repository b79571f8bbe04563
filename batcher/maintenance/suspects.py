"""Which batches are suspected of killing engines, and what happens to them. Pure: suspects in, judgements out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wire.messages import Question

PARTS = 4

DEATHS_BY_ITSELF = 2

DEATHS_ALONE = 3

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A suspect batch as Redis has it.

    Attributes:
        attempts, deaths: How many workers it was given to, and how many of them died.
        alone: How many of them died while it was isolated, as part of a larger group or by itself.
        in_company: How many of those while it was part of a larger group.
        died: The workers that did, in order.
        questions: Those that have no record yet, with their encoding.
    """

    batch_id: bytes
    attempts: int
    deaths: int
    alone: int
    in_company: int
    died: tuple[str, ...]
    questions: tuple[tuple[bytes, Question], ...]

    @property
    def convicted(self) -> bool:
        """Whether there is no doubt left that its one question kills engines."""
        return (
            len(self.questions) == 1 and self.alone >= DEATHS_ALONE and self.alone - self.in_company >= DEATHS_BY_ITSELF
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of suspects that are judged as one.

    Attributes:
        worst: The one of them with the most deaths, from which the parts inherit.
        parts: What is to be run alone; nothing if `worst` is convicted or nothing is left to be answered.
        in_company: What the parts have as `Suspect.in_company`.
    """

    worst: Suspect
    parts: list[Sequence[tuple[bytes, Question]]]
    in_company: int

    def history(self) -> dict[str, int | str]:
        """What the parts inherit, as Redis has it."""
        worst = self.worst
        counts: dict[str, int | str] = {
            "attempts": worst.attempts,
            "deaths": worst.deaths,
            "alone": worst.alone,
            "in_company": self.in_company,
        }
        return counts | {"died": ",".join(worst.died)}


def judge(group: Sequence[Suspect]) -> Judgement:
    """Divide what has more than one open question; have a single one run again until it is convicted."""
    worst = max(group, key=lambda suspect: suspect.deaths)
    questions = [question for suspect in group for question in suspect.questions]
    parts = [] if worst.convicted else divide(questions)
    return Judgement(worst, parts, worst.in_company if len(questions) == 1 else worst.alone)


def admit(groups: Iterable[Sequence[Suspect]], room: int) -> tuple[list[Sequence[Suspect]], list[Suspect]]:
    """Choose whom to judge now.

    Workers that are killed from outside make suspects of all that they hold, and each part of it that runs alone keeps
    a worker from all else. So those with the most evidence against them come first, as long as no more than `room`
    parts come of them.

    Returns:
        Groups to be judged, and suspects that shall run with others again; to be found once more, a culprit costs one
        death more. Whoever was
        isolated already and finds no room is in neither, and waits.
    """
    judged: list[Sequence[Suspect]] = []
    free: list[Suspect] = []
    for group in sorted(groups, key=lambda group: -max(suspect.alone for suspect in group)):
        parts = len(judge(group).parts)
        if parts <= room or not parts:
            judged.append(group)
            room -= parts
        elif not any(suspect.alone for suspect in group):
            free += group
    return judged, free


def divide(questions: Sequence[Item]) -> list[Sequence[Item]]:
    """What to run alone next: up to `PARTS` parts of nearly the same size, in order; none if there is nothing."""
    size = -(-len(questions) // PARTS)
    return [questions[start : start + size] for start in range(0, len(questions), size)] if questions else []


def seen_together(suspects: Iterable[Suspect], max_bytes: int) -> list[list[Suspect]]:
    """Suspects that are judged as one: what the same worker had when it died.

    What was isolated already is a case of its own. A group has at most `max_bytes` of questions, unless a batch alone
    has more.
    """
    groups: dict[object, list[list[Suspect]]] = {}
    for suspect in suspects:
        of_one_death = groups.setdefault(suspect.batch_id if suspect.alone else suspect.died[-1:], [[]])
        if sum(map(_bytes_of, of_one_death[-1])) + _bytes_of(suspect) > max_bytes and of_one_death[-1]:
            of_one_death.append([])
        of_one_death[-1].append(suspect)
    return [group for of_one_death in groups.values() for group in of_one_death]


def _bytes_of(suspect: Suspect) -> int:
    return sum(len(encoded) for encoded, _ in suspect.questions)
