"""How long a run will still take, on simulated engines whose answers vary in length."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from fleet.pacing import Look, Pace, residual

AT_ONCE = 64
STEP_S = 0.03


def a_die(seed: int) -> random.Random:
    """One that falls the same way each time."""
    return random.Random(seed)  # noqa: S311 (nothing secret)


def uniform(rng: random.Random) -> int:
    """As the stub's."""
    return rng.randint(8, 128)


def lognormal(rng: random.Random) -> int:
    """As measured answers to GSM8K problems are distributed: the longest are four times the mean."""
    return min(512, max(16, int(rng.lognormvariate(4.6, 0.7))))


def ends_of(lengths: list[int]) -> list[tuple[float, int]]:
    """When each answer ends, and its length, with `AT_ONCE` in the engine and the next begun as soon as one ends."""
    waiting = iter(lengths)
    engine = [(length * STEP_S, length) for length in itertools.islice(waiting, AT_ONCE)]
    heapq.heapify(engine)
    ends = []
    while engine:
        end_s, length = heapq.heappop(engine)
        ends.append((end_s, length))
        for following in itertools.islice(waiting, 1):
            heapq.heappush(engine, (end_s + following * STEP_S, following))
    return ends


def estimates(ends: list[tuple[float, int]]) -> Iterator[tuple[float, float | None, float]]:
    """(share done, estimated seconds left, seconds left) four times a second."""
    pace, done, tokens, now_s = Pace(), 0, 0, 0.0
    while now_s < ends[-1][0] - 0.5:
        now_s += 0.25
        while ends[done][0] <= now_s:
            tokens += ends[done][1]
            done += 1
        left = len(ends) - done
        pace.observe(Look(now_s, done, tokens), left, min(left, AT_ONCE))
        lengths = [length for _, length in ends[max(0, done - 200) : done]]
        yield done / len(ends), pace.left_s(len(ends), left, lengths), ends[-1][0] - now_s


@pytest.mark.parametrize("length", [uniform, lognormal])
@pytest.mark.parametrize("seed", range(3))
def test_the_end_is_foreseen_within_15_percent_once_a_tenth_is_done(length: Callable[[random.Random], int], seed: int) -> None:
    """Of the run's whole time, at every moment from then on; 30 times as many questions as the engine takes at once."""
    rng = a_die(seed)
    ends = ends_of([length(rng) for _ in range(30 * AT_ONCE)])

    wrong = [abs((guess or 0.0) - left_s) / ends[-1][0] for share, guess, left_s in estimates(ends) if share >= 0.1]

    assert max(wrong) < 0.15


def test_nothing_is_foreseen_before_the_first_answers_are_in() -> None:
    """Rather no number than a wild one."""
    ends = ends_of([uniform(a_die(seed)) for seed in range(30 * AT_ONCE)])

    assert all(guess is None for share, guess, _ in estimates(ends) if share < 0.02)


def test_a_fleet_that_grew_is_believed_within_minutes() -> None:
    """The rate is that of the last five minutes, not that of the day before."""
    pace = Pace()
    for second in range(20_000):
        pace.observe(Look(float(second), second, 0), 1_000_000, 64)
    for second in range(400):
        pace.observe(Look(20_000.0 + second, 20_000 + 10 * second, 0), 1_000_000, 64)

    assert pace.questions_per_s == pytest.approx(10, rel=0.1)


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    """A run of a month has tens of millions of looks."""
    pace = Pace()
    for second in range(20_000):
        pace.observe(Look(float(second), 10 * second, 0), 1_000_000, 64)

    assert len(pace._looks) <= 512


def test_equal_answers_have_up_to_all_of_their_length_to_come() -> None:
    """In a busy engine every token of an answer is met as often as any other."""
    assert residual([100] * 50, 0.5) == pytest.approx(50, abs=0.1)
    assert residual([100] * 50, 1.0) == pytest.approx(0, abs=0.1)
