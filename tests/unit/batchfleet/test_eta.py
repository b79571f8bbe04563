"""How long a run will still take, on simulated engines whose answers vary in length."""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from batchfleet.runs.answer_lengths import clock_of, survival
from batchfleet.runs.eta import EtaEstimator, Left, Sample, residual
from producer.resume import ENDS_KEPT, FinishedAnswer

AT_ONCE = 64
STEP_S = 0.03
BEGIN_WITHIN_S = 0.4


def a_die(seed: int) -> random.Random:
    """One that falls the same way each time."""
    return random.Random(seed)  # noqa: S311 (nothing secret)


def uniform(rng: random.Random) -> int:
    """As the stub's."""
    return rng.randint(8, 128)


def lognormal(rng: random.Random) -> int:
    """As measured answers to GSM8K problems are distributed: the longest are four times the mean."""
    return min(512, max(16, int(rng.lognormvariate(4.6, 0.7))))


def ends_of(lengths: list[int], rng: random.Random | None = None) -> list[tuple[float, int]]:
    """When each answer ends, and its length, with `AT_ONCE` in the engine and the next begun as soon as one ends.

    Args:
        rng: The first begin within `BEGIN_WITHIN_S`, as batches come in and prompts are read; None for all at once.
    """
    waiting = iter(lengths)
    engine = [
        (length * STEP_S + (rng.random() * BEGIN_WITHIN_S if rng else 0), length)
        for length in itertools.islice(waiting, AT_ONCE)
    ]
    heapq.heapify(engine)
    ends = []
    while engine:
        end_s, length = heapq.heappop(engine)
        ends.append((end_s, length))
        for following in itertools.islice(waiting, 1):
            heapq.heappush(engine, (end_s + following * STEP_S, following))
    return ends


def estimates(ends: list[tuple[float, int]], most: int = 0) -> Iterator[tuple[float, Left | None, float]]:
    """(share done, estimated seconds left, seconds left) four times a second. `most`: tokens that an answer may have; 0 if nothing says."""
    pace, done, tokens, now_s = EtaEstimator(), 0, 0, 0.0
    latest: deque[FinishedAnswer] = deque(maxlen=ENDS_KEPT)
    while now_s < ends[-1][0] - 0.5:
        now_s += 0.25
        while ends[done][0] <= now_s:
            tokens += ends[done][1]
            latest.append(FinishedAnswer(*ends[done], most))
            done += 1
        left = len(ends) - done
        pace.observe(Sample(now_s, done, tokens), left, min(left, AT_ONCE), latest)
        yield done / len(ends), pace.left_s(len(ends), left), ends[-1][0] - now_s


def equal(rng: random.Random) -> int:  # noqa: ARG001 (as the others)
    """As in benchmarks, and wherever every answer is cut off at the same length."""
    return 100


def cut(rng: random.Random) -> int:
    """As `lognormal`, and two of five are cut off at the most."""
    return min(128, int(rng.lognormvariate(4.6, 0.7)))


MOST: dict[Callable[[random.Random], int], int] = {lognormal: 512, equal: 100, cut: 128}
BOUNDS: dict[tuple[Callable[[random.Random], int], int], float] = {
    (uniform, 5): 0.5, (uniform, 10): 0.25, (uniform, 20): 0.15, (uniform, 100): 0.08,
    (lognormal, 3): 0.45, (lognormal, 5): 0.4, (lognormal, 10): 0.25, (lognormal, 20): 0.15, (lognormal, 100): 0.08,
    (equal, 3): 0.15, (equal, 5): 0.1, (equal, 10): 0.1, (equal, 20): 0.15,
    (cut, 3): 0.15, (cut, 5): 0.12, (cut, 10): 0.1, (cut, 20): 0.1,
}  # fmt: skip
"""(lengths, how many times as many questions as the engine takes at once) -> the largest error, as a share of the run's whole time, at any moment
once a tenth is done; of the middle one of five runs. With few generations of answers nobody can know how long the longest are."""
BEYOND_BOUNDS = 0.2
"""The same, of how far the truth is at most from what lies between the least and the most that is told."""


@pytest.mark.parametrize(("length", "times"), BOUNDS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_end_is_foreseen_once_a_tenth_is_done(length: Callable[[random.Random], int], times: int) -> None:
    """Within 15 % with 20 times as many questions as fit at once, or more, whatever the lengths; sooner where answers are cut off at a length."""
    worst, beyond = [], []
    for seed in range(5 if times < 100 else 1):
        rng = a_die(seed)
        ends = ends_of([length(rng) for _ in range(times * AT_ONCE)], rng)
        told = [(guess, left_s) for share, guess, left_s in estimates(ends, MOST.get(length, 0)) if share >= 0.1]
        worst.append(max(abs((guess.likely if guess else 0.0) - left_s) / ends[-1][0] for guess, left_s in told))
        beyond.append(
            max(max(guess.least - left_s, left_s - guess.most) / ends[-1][0] for guess, left_s in told if guess)
        )

    assert statistics.median(worst) < BOUNDS[length, times], worst
    assert statistics.median(beyond) < BEYOND_BOUNDS, beyond


def test_what_a_wave_in_its_middle_told_is_mended_when_it_is_over() -> None:
    """Of 64 answers of one length 8 come in a first look and the others in the next: nothing says any more that there are longer ones."""
    pace, ends = EtaEstimator(), [FinishedAnswer(5.0 + 0.2 * (number >= 8), 100) for number in range(64)]
    pace.observe(Sample(0.0, 0, 0), 640, 64)
    pace.observe(Sample(5.1, 8, 800), 632, 64, ends[:8])
    pace.observe(Sample(5.35, 64, 6400), 576, 64, ends)
    pace.observe(Sample(6.0, 64, 6400), 576, 64, ends)

    left = pace.left_s(640, 576)

    assert left is not None
    assert left.likely == pytest.approx(9 * 5.0 - 1.0, rel=0.1)


def test_between_two_waves_time_passes() -> None:
    """Answers of one length end together; in the middle between two such moments half of the time until the next is gone."""
    ends = ends_of([100] * (5 * AT_ONCE))

    told = [(guess.likely, left_s) for share, guess, left_s in estimates(ends, 100) if guess and 0.3 < share < 0.5]

    assert len(told) > 10
    assert all(abs(likely - left_s) < 0.3 * 100 * STEP_S for likely, left_s in told)


def test_nothing_is_foreseen_before_the_first_answers_are_in() -> None:
    """Rather no number than a wild one."""
    ends = ends_of([uniform(a_die(seed)) for seed in range(30 * AT_ONCE)])

    assert all(guess is None for share, guess, _ in estimates(ends) if share < 0.02)


def test_a_fleet_that_grew_is_believed_within_minutes() -> None:
    """The rate is that of the last five minutes, not that of the day before."""
    pace = EtaEstimator()
    for second in range(20_000):
        pace.observe(Sample(float(second), second, 0), 1_000_000, 64)
    for second in range(400):
        pace.observe(Sample(20_000.0 + second, 20_000 + 10 * second, 0), 1_000_000, 64)

    assert pace.questions_per_s == pytest.approx(10, rel=0.1)


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    """A run of a month has tens of millions of looks."""
    pace = EtaEstimator()
    for second in range(20_000):
        pace.observe(Sample(float(second), 10 * second, 0), 1_000_000, 64)

    assert len(pace._looks) <= 512


def test_equal_answers_have_up_to_all_of_their_length_to_come() -> None:
    """In a busy engine every token of an answer is met as often as any other."""
    assert residual([100] * 50, 0.5) == pytest.approx(50, abs=0.1)
    assert residual([100] * 50, 1.0) == pytest.approx(0, abs=0.1)


def test_what_runs_still_counts_for_how_long_answers_are() -> None:
    """Fifty of a hundred ended at 20 tokens; the other fifty, and those that came after, have had 40 and more: two thirds are longer than 20."""
    ends = [FinishedAnswer(2.0, 20)] * 50

    lengths = survival(ends, 0.0, 6.0, 100, 0.1).lengths()

    assert 60 > statistics.fmean(lengths) > 25
    assert sum(length > 20 for length in lengths) == pytest.approx(133, abs=5)


def test_the_beginning_is_found_from_when_answers_of_known_length_end() -> None:
    """Even if the engines were seen at work only later, and some of the answers began later."""
    ends = [FinishedAnswer(3.0 + 0.1 * length, length) for length in range(10, 50, 2)] + [
        FinishedAnswer(8.0, 12),
        FinishedAnswer(8.5, 18),
    ]

    assert clock_of(sorted(ends), 64, 4.0) == pytest.approx((3.0, 0.1), abs=0.01)
    assert clock_of([FinishedAnswer(5.0, 10)] * 30, 64, 4.0) == pytest.approx((4.0, 0.1))
    assert clock_of([FinishedAnswer(5.0, 0)] * 30, 64, 4.0) is None
