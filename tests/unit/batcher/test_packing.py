"""Which questions ride together, and when: the pure decisions of the batcher."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.options import BatcherOptions, BatchLimits
from batcher.packing import (
    LATEST_LOOK_S,
    SOONEST_LOOK_S,
    URGENT_S,
    Demand,
    Waiting,
    look_again_s,
    most_waiting,
    pack,
    plan,
)

sizes = st.lists(st.integers(1, 400), max_size=80)
limits = st.builds(BatchLimits, max_questions=st.integers(1, 20), max_bytes=st.integers(1, 1000))


def waiting(*lengths: int, since: float = 0.0) -> list[Waiting]:
    """Questions of these sizes in bytes."""
    return [Waiting(str(number).encode(), b"x" * length, since) for number, length in enumerate(lengths)]


@given(sizes, limits)
def test_every_question_is_in_exactly_one_batch_in_arrival_order(lengths: list[int], bounds: BatchLimits) -> None:
    """Nothing is dropped, doubled or overtaken."""
    questions = waiting(*lengths)

    batches = pack(questions, bounds)

    assert [question for batch in batches for question in batch] == questions


@given(sizes, limits)
def test_no_batch_exceeds_a_bound(lengths: list[int], bounds: BatchLimits) -> None:
    """Only a question that is too large by itself may exceed the bytes, and then it rides alone."""
    for batch in pack(waiting(*lengths), bounds):
        assert 1 <= len(batch) <= bounds.max_questions
        assert sum(len(question.data) for question in batch) <= bounds.max_bytes or len(batch) == 1


@given(sizes, limits)
def test_a_batch_ends_only_where_the_next_question_would_not_fit(lengths: list[int], bounds: BatchLimits) -> None:
    """Batches are as large as the bounds allow."""
    batches = pack(waiting(*lengths), bounds)

    for batch, following in itertools.pairwise(batches):
        size = sum(len(question.data) for question in batch)
        assert len(batch) == bounds.max_questions or size + len(following[0].data) > bounds.max_bytes


OPTIONS = BatcherOptions(limits=BatchLimits(max_questions=4), timeout_s=0.5, linger_s=0.002, max_waiting_batches=8)


def test_full_batches_go_at_once_and_the_rest_waits_for_company() -> None:
    """Nine questions at four a batch: two batches now, one question waits its half second."""
    decided = plan(waiting(*[1] * 9, since=10.0), Demand(), OPTIONS, now=10.1)

    assert [len(batch) for batch in decided.batches] == [4, 4]
    assert decided.recheck_s is not None
    assert abs(decided.recheck_s - 0.4) < 1e-9


def test_an_incomplete_batch_goes_when_its_time_is_up() -> None:
    """The first question's wait counts, not the last one's."""
    questions = [*waiting(1, since=10.0), Waiting(b"late", b"x", 10.4)]

    decided = plan(questions, Demand(), OPTIONS, now=10.5)

    assert decided.batches == [questions]


def test_a_hungry_worker_ends_the_wait() -> None:
    """Company is worth two milliseconds then, not half a second."""
    soon = plan(waiting(1, since=10.0), Demand(hungry=1), OPTIONS, now=10.001)
    now = plan(waiting(1, since=10.0), Demand(hungry=1), OPTIONS, now=10.003)

    assert soon.batches == []
    assert soon.recheck_s is not None
    assert soon.recheck_s < 0.002
    assert len(now.batches) == 1


def test_a_hungry_worker_is_served_by_a_batch_that_waits_already() -> None:
    """Then what is incomplete may keep filling."""
    decided = plan(waiting(1, since=10.0), Demand(waiting_batches=1, hungry=1), OPTIONS, now=10.1)

    assert decided.batches == []


@given(st.integers(1, 1000))
def test_a_full_queue_has_room_left_for_every_higher_priority(max_waiting_batches: int) -> None:
    """Nobody below can take it, so the urgent need not wait until the backlog in RQ is worked off."""
    rooms = [most_waiting(max_waiting_batches, priority) for priority in range(10)]

    assert rooms[0] == max_waiting_batches
    assert all(lower < higher for lower, higher in itertools.pairwise(rooms))


@given(st.integers(0, 10_000))
def test_there_can_be_a_backlog_however_many_workers_there_are(workers: int) -> None:
    """More batches may wait than there are workers, unless somebody set a bound.

    Only then do engines get more than they work on at once.
    """
    unset = replace(OPTIONS, max_waiting_batches=None, limits=BatchLimits(max_questions=1))
    questions = [Waiting(b"id", b"x", 0.0)] * (workers + 100)

    decided = plan(questions, Demand(workers=workers), unset, now=0.0)
    bounded = plan(questions, Demand(workers=workers), replace(unset, max_waiting_batches=8), now=0.0)

    assert len(decided.batches) > workers
    assert len(bounded.batches) == 8


def test_an_urgent_question_goes_although_the_backlog_fills_the_queue() -> None:
    """And it hardly waits for company."""
    full = Demand(waiting_batches=most_waiting(OPTIONS.max_waiting_batches, 0))

    urgent = plan(waiting(1, since=10.0), full, OPTIONS, now=10.0 + URGENT_S, priority=1)
    ordinary = plan(waiting(1, since=10.0), full, OPTIONS, now=10.0 + URGENT_S)

    assert len(urgent.batches) == 1
    assert ordinary.batches == []


def test_a_full_queue_is_looked_at_as_often_as_it_empties() -> None:
    """The next look comes when a quarter of it will be free, so workers never wait.

    Slow workers do not cost a look every few milliseconds.
    """
    assert look_again_s(64, taken=8, in_s=0.01) == pytest.approx(0.02)
    assert look_again_s(64, taken=64, in_s=0.01) == SOONEST_LOOK_S
    assert look_again_s(64, taken=1, in_s=0.04) == look_again_s(64, taken=0, in_s=5.0) == LATEST_LOOK_S


def test_a_plan_without_room_takes_the_demand_s_word_for_when_to_look() -> None:
    """Whether there was no room at all, or not enough."""
    slots = most_waiting(OPTIONS.max_waiting_batches, 0)
    full, one_free = Demand(slots, look_again_s=0.04), Demand(slots - 1, look_again_s=0.04)

    assert plan(waiting(1), full, OPTIONS, now=0.0).recheck_s == 0.04
    assert plan(waiting(*[1] * 9), one_free, OPTIONS, now=0.0).recheck_s == 0.04


@given(sizes, st.integers(0, 12), st.integers(0, 2), st.floats(0, 2))
def test_no_more_batches_wait_than_allowed(lengths: list[int], waiting_batches: int, hungry: int, age_s: float) -> None:
    """What exceeds the bound stays in the stream, where priorities count."""
    decided = plan(waiting(*lengths), Demand(waiting_batches, hungry), OPTIONS, now=age_s)

    assert len(decided.batches) <= max(0, most_waiting(OPTIONS.max_waiting_batches, 0) - waiting_batches)


@given(sizes, st.integers(0, 12), st.integers(0, 2), st.floats(0, 2), st.integers(1, 9))
def test_a_plan_that_leaves_questions_says_when_to_look_again(
    lengths: list[int], waiting_batches: int, hungry: int, age_s: float, batch_size: int
) -> None:
    """Otherwise they would wait until something else happens."""
    options = replace(OPTIONS, limits=BatchLimits(max_questions=batch_size))

    decided = plan(waiting(*lengths), Demand(waiting_batches, hungry), options, now=age_s)

    left = len(lengths) - sum(map(len, decided.batches))
    assert decided.recheck_s is not None or left == 0
