"""How long a run will still take, on simulated engines whose answers vary in length."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from fleet.foreseeing import clock_of, foreseen_lengths
from fleet.pacing import Look, Pace, residual
from producer.stock import ENDS_KEPT, Ended

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
    latest: deque[Ended] = deque(maxlen=ENDS_KEPT)
    while now_s < ends[-1][0] - 0.5:
        now_s += 0.25
        while ends[done][0] <= now_s:
            tokens += ends[done][1]
            latest.append(Ended(*ends[done]))
            done += 1
        left = len(ends) - done
        pace.observe(Look(now_s, done, tokens), left, min(left, AT_ONCE), latest)
        yield done / len(ends), pace.left_s(len(ends), left), ends[-1][0] - now_s


def equal(rng: random.Random) -> int:  # noqa: ARG001 (as the others)
    """As in benchmarks, and wherever every answer is cut off at the same length."""
    return 100


BOUNDS: dict[tuple[Callable[[random.Random], int], int], float] = {
    (uniform, 5): 0.5, (uniform, 10): 0.25, (uniform, 20): 0.15, (uniform, 100): 0.08,
    (lognormal, 5): 0.4, (lognormal, 10): 0.25, (lognormal, 20): 0.15, (lognormal, 100): 0.08,
    (equal, 5): 0.15, (equal, 10): 0.1, (equal, 20): 0.08,
}  # fmt: skip
"""(lengths, how many times as many questions as the engine takes at once) -> the largest error, as a share of the run's whole time, at any moment
once a tenth is done; of the middle one of five runs. With few generations of answers nobody can know how long the longest are."""


@pytest.mark.parametrize(("length", "times"), BOUNDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_end_is_foreseen_once_a_tenth_is_done(length: Callable[[random.Random], int], times: int) -> None:
    """Within 15 % with 20 times as many questions as fit at once, or more, whatever the lengths."""
    seeds = range(5 if times < 100 and length is not equal else 1)
    worst = []
    for seed in seeds:
        rng = a_die(seed)
        ends = ends_of([length(rng) for _ in range(times * AT_ONCE)])
        worst.append(max(abs((guess or 0.0) - left_s) / ends[-1][0] for share, guess, left_s in estimates(ends) if share >= 0.1))

    assert statistics.median(worst) < BOUNDS[length, times], worst


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


def test_what_runs_still_counts_for_how_long_answers_are() -> None:
    """Fifty of a hundred ended at 20 tokens; the other fifty, and those that came after, have had 40 and more: two thirds are longer than 20."""
    ends = [Ended(2.0, 20)] * 50

    lengths = foreseen_lengths(ends, 0.0, 6.0, 100, 0.1)

    assert 60 > statistics.fmean(lengths) > 25
    assert sum(length > 20 for length in lengths) == pytest.approx(133, abs=5)


def test_the_beginning_is_found_from_when_answers_of_known_length_end() -> None:
    """Even if the engines were seen at work only later, and some of the answers began later."""
    ends = [Ended(3.0 + 0.1 * length, length) for length in range(10, 50, 2)] + [Ended(8.0, 12), Ended(8.5, 18)]

    assert clock_of(sorted(ends), 64, 4.0) == pytest.approx((3.0, 0.1), abs=0.01)
    assert clock_of([Ended(5.0, 10)] * 30, 64, 4.0) == pytest.approx((4.0, 0.1))
    assert clock_of([Ended(5.0, 0)] * 30, 64, 4.0) is None
