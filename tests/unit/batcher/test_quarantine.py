"""How soon the culprit stands alone, and what an innocent question would have to suffer. Pure: nothing is run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import pytest

from batcher.maintenance.suspects import Judgement, Suspect, admit, divide, judge, seen_together
from tests.builders import a_question
from wire.messages import Question

Open = tuple[bytes, Question]
MIB = 1024 * 1024


def questions(count: int, size: int = 1) -> list[Open]:
    """`count` questions, each with an encoding of `size` bytes."""
    return [(b"x" * size, a_question(f"q{index}", index=index)) for index in range(count)]


def a_suspect(name: str, held: Sequence[Open], *, alone: int = 0, in_company: int = 0, last: str = "w2") -> Suspect:
    """A batch after the death of two workers, and of `alone` more while it was isolated."""
    return Suspect(name.encode(), 2 + alone, 2 + alone, alone, in_company, ("w1", last), tuple(held))


def deaths_to_find(culprits: Collection[int], in_flight: int, batch_size: int) -> dict[int, int]:
    """Have everything run, and workers die of the culprits; returns how many died of each."""
    asked = questions(in_flight)
    batches = [a_suspect(str(start), asked[start : start + batch_size]) for start in range(0, in_flight, batch_size)]
    to_judge = seen_together(batches, MIB)
    found: dict[int, int] = {}
    while to_judge:
        verdict = judge(to_judge.pop())
        if verdict.worst.convicted:
            found[verdict.worst.questions[0][1].index] = verdict.worst.deaths
        to_judge += [
            [_after_a_death(part, verdict)]
            for part in verdict.parts
            if any(question.index in culprits for _, question in part)
        ]
    return found


def _after_a_death(part: Sequence[Open], verdict: Judgement) -> Suspect:
    worst = verdict.worst
    return Suspect(b"part", 0, worst.deaths + 1, worst.alone + 1, verdict.in_company, (*worst.died, "w"), tuple(part))


@pytest.mark.parametrize("batch_size", [1, 16, 64])
@pytest.mark.parametrize("in_flight", [8, 64, 96, 1000])
def test_the_culprit_is_found_within_the_promised_deaths(in_flight: int, batch_size: int) -> None:
    """At most log2(n) + 2 of them, wherever it stands and however it travelled."""
    for culprit in (0, in_flight // 3, in_flight - 1):
        assert deaths_to_find([culprit], in_flight, batch_size)[culprit] <= math.log2(in_flight) + 2


def test_several_culprits_are_found_likewise() -> None:
    """None of them makes it harder to find the others, and nobody else is convicted."""
    found = deaths_to_find([3, 4, 50], 64, 16)

    assert set(found) == {3, 4, 50}
    assert max(found.values()) <= math.log2(64) + 2


@pytest.mark.parametrize("in_flight", [1, 2, 5, 16, 64])
def test_an_innocent_question_survives_four_workers_killed_from_outside(in_flight: int) -> None:
    """Even if somebody kills a worker whenever it holds that question."""
    assert deaths_to_find([0], in_flight, 1)[0] > 4


def test_parts_are_whole_and_nearly_equal() -> None:
    """Every question is in exactly one, in order."""
    for count in range(70):
        parts = divide(list(range(count)))
        assert [number for part in parts for number in part] == list(range(count))
        assert len(parts) <= 4
        assert all(parts)


def test_only_what_died_together_is_judged_together() -> None:
    """Another worker's batches, and those that were isolated already, are other cases.

    A group is not larger than a batch may be.
    """
    mine = [a_suspect("a", questions(2, size=100)), a_suspect("b", questions(2, size=100))]
    others = [a_suspect("c", questions(1), last="w3"), a_suspect("d", questions(1), alone=1)]

    assert [[one.batch_id for one in group] for group in seen_together([*mine, *others], 400)] == [
        [b"a", b"b"],
        [b"c"],
        [b"d"],
    ]
    assert [[one.batch_id for one in group] for group in seen_together(mine, 399)] == [[b"a"], [b"b"]]
    assert [[one.batch_id for one in group] for group in seen_together(mine[:1], 10)] == [[b"a"]]


def test_what_is_answered_by_now_is_dropped() -> None:
    """A suspect without open questions has nothing to run."""
    assert judge([a_suspect("a", [])]).parts == []


def test_no_more_run_alone_than_there_is_room_for() -> None:
    """After dozens of kills from outside, all that was in flight is suspect.

    Those with evidence go first, the rest runs with others again.
    """
    held = [[a_suspect(f"b{number}", questions(16), last=f"w{number}")] for number in range(40)]
    alone = [a_suspect("alone", questions(1), alone=1)]

    judged, free = admit([*held, alone], room=16)

    assert judged[0] == alone
    assert sum(len(judge(group).parts) for group in judged) == 13
    assert len(judged) + len(free) == 41


def test_who_was_isolated_waits_for_room() -> None:
    """Set free, a culprit would have to be found all over again."""
    alone = [a_suspect("alone", questions(4), alone=1)]

    assert admit([alone], room=3) == ([], [])


def test_a_conviction_needs_no_room() -> None:
    """Nothing of it runs any more."""
    culprit = [a_suspect("culprit", questions(1), alone=3)]

    assert admit([culprit], room=0) == ([culprit], [])
