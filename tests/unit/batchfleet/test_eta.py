"""Rates and times left, of engines that answer one by one, in waves, in bursts, or in any order.

What is told was measured, and nothing is told that is not so.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import NamedTuple

import pytest

from batchfleet.runs.eta import SHORTEST_S, EtaEstimator, Sample
from gpu_worker.engines.stub import StubEngine, StubOptions
from tests.builders import a_question
from tests.unit.stepped_time import run_stepped

LOOK_S = 0.25
FIRST_S = 30.0
IN_FLIGHT = 64

Answer = Callable[[int], Awaitable[None]]
Run = Callable[[], Coroutine[object, object, list[float]]]


async def arrivals(questions: int, answer: Answer) -> list[float]:
    """When each answer came, with `IN_FLIGHT` asked at once, from a loop whose time is stepped."""
    room, ended = asyncio.Semaphore(IN_FLIGHT), list[float]()

    async def ask(number: int) -> None:
        async with room:
            await answer(number)
        ended.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(ask(number) for number in range(questions)))
    return ended


async def one_lock() -> list[float]:
    """A server that makes one answer at a time, a second for each."""
    lock = asyncio.Lock()

    async def answer(_: int) -> None:
        async with lock:
            await asyncio.sleep(1.0)

    return await arrivals(120, answer)


async def throttled() -> list[float]:
    """A server that lets 20 questions pass in each period of ten seconds."""
    loop = asyncio.get_running_loop()
    passed: dict[int, int] = {}

    async def answer(_: int) -> None:
        while passed.get(period := int(loop.time() // 10), 0) >= 20:
            await asyncio.sleep(10 * (period + 1) - loop.time())
        passed[period] = passed.get(period, 0) + 1
        await asyncio.sleep(0.4)

    return await arrivals(400, answer)


async def all_equally_long() -> list[float]:
    """Every answer is cut off at the same length: they come in waves, with a little spread as prompts are read."""
    die = random.Random(1)  # noqa: S311 (the same each time)

    async def answer(_: int) -> None:
        await asyncio.sleep(8.0 + 0.5 * die.random())

    return await arrivals(20 * IN_FLIGHT, answer)


async def mixed_lengths() -> list[float]:
    """The stub, at 30 ms a token."""
    engine = StubEngine(StubOptions(max_num_seqs=IN_FLIGHT, step_s=0.03))
    await engine.start()

    async def answer(number: int) -> None:
        await engine.answer(a_question(f"q{number}"))

    try:
        return await arrivals(40 * IN_FLIGHT, answer)
    finally:
        await engine.stop()


@functools.cache
def ends_of(run: Run) -> list[float]:
    """What one of these gives; hours of it take no time."""
    return run_stepped(run())


class Told(NamedTuple):
    """One look at a run: what was told then, and how much time was really left.

    That is the seconds since the start, the answers by then, the rate and time left that were told, and the true time
    left.
    """

    at_s: float
    done: int
    rate: float
    left_s: float | None
    true_left_s: float


def told(ends: list[float]) -> Iterator[Told]:
    """What is told of these arrivals, look by look."""
    pace, done = EtaEstimator(), 0
    for number in itertools.count():
        now_s = number * LOOK_S
        while done < len(ends) and ends[done] <= now_s:
            done += 1
        left = len(ends) - done
        if not left:
            return
        pace.observe(Sample(now_s, done, 50 * done), left, min(left, IN_FLIGHT))
        yield Told(now_s, done, pace.questions_per_s, pace.left_s(left), ends[-1] - now_s)


def windowed(ends: list[float], window_s: float) -> list[float]:
    """The run's own variation: its rates over every window of so many seconds."""
    starts = [LOOK_S * number for number in range(int((ends[-1] - window_s) / LOOK_S) + 1)]
    return [sum(start_s < end_s <= start_s + window_s for end_s in ends) / window_s for start_s in starts]


RUNS: dict[Run, float] = {one_lock: 1.0, throttled: 10.0, all_equally_long: 8.5, mixed_lengths: 128 * 0.03}
"""Each with how long one answer may take from when it is begun, in seconds.

That of the throttled server includes its period.
"""


@pytest.mark.parametrize("run", RUNS)
def test_what_is_told_is_off_by_no_more_than_the_run_itself_varies(run: Run) -> None:
    """After half a minute, the rate is one that the run had over some window of seconds.

    The time left is what is left at one of these rates. A window has four of the longest answers, and is as long as the
    shortest over which a rate is measured. On top of what the rates vary, an end may be as far off as the longest
    answer takes: nobody knows whether it is the last one.
    """
    ends = ends_of(run)
    rates = windowed(ends, max(SHORTEST_S, 4 * RUNS[run]))
    low, high = min(rates), max(rates)
    late = [one for one in told(ends) if one.at_s >= FIRST_S]

    assert len(late) > 50
    for one in late:
        assert 0.99 * low <= one.rate <= 1.01 * high, one
        assert one.left_s is not None
        variation_s = one.true_left_s * (high / low - 1) + RUNS[run]
        assert abs(one.left_s - one.true_left_s) <= variation_s, (one, variation_s)


@pytest.mark.parametrize("run", RUNS)
def test_no_number_is_told_that_the_count_refutes(run: Run) -> None:
    """This holds from the first look on.

    At no rate that is told would more have come than did and is in flight, and some time is left as long as there is
    work left.
    """
    for one in told(ends_of(run)):
        assert one.rate * one.at_s <= one.done + IN_FLIGHT, one
        assert one.left_s is None or one.left_s > 0, one
        assert one.rate == 0 or one.done > 0, one


def test_a_server_that_makes_one_answer_a_second_is_told_as_that() -> None:
    """The rate is told as 1.0/s, and the time left as the seconds that are left.

    This holds however many are asked at once, and although all of its answers are equally long.
    """
    for one in told(ends_of(one_lock)):
        if one.done >= 12:
            assert one.rate == pytest.approx(1.0, abs=0.05)
            assert one.left_s == pytest.approx(one.true_left_s, abs=1.0)


def test_nothing_is_told_before_the_first_answers_are_in() -> None:
    """Rather no number than a wild one: a few that came early do not make a rate."""
    pace = EtaEstimator()
    pace.observe(Sample(0.0, 0, 0), 1000, 64)
    pace.observe(Sample(0.2, 5, 0), 995, 64)

    assert (pace.questions_per_s, pace.left_s(995)) == (0.0, None)


def test_a_silence_longer_than_all_before_slows_the_rate() -> None:
    """One as long as those before changes nothing; what is longer counts, second by second."""
    pace = EtaEstimator()
    for second in range(61):
        pace.observe(Sample(float(second), second, 0), 1000 - second, 64)
    rates = []
    for second in range(61, 122):
        pace.observe(Sample(float(second), 60, 0), 940, 64)
        rates.append(pace.questions_per_s)

    assert rates[0] == pytest.approx(1.0)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.55


def test_the_last_answers_take_as_long_as_they_have_kept_silent() -> None:
    """Of a fast run the last answer is a long one: nobody is told for minutes that a second is left."""
    pace = EtaEstimator()
    for number in range(400):
        pace.observe(Sample(LOOK_S * number, 8 * number, 0), 3193 - 8 * number, 64)
    for number in range(400, 800):
        pace.observe(Sample(LOOK_S * number, 3192, 0), 1, 1)

    left_s = pace.left_s(1)

    assert left_s is not None
    assert left_s > 50


def test_the_boot_of_an_engine_does_not_count() -> None:
    """Before any worker can answer, no time passes for the rate."""
    pace = EtaEstimator()
    for second in range(300):
        pace.observe(Sample(float(second), 0, 0), 100, 0, can_work=False)
    for second in range(300, 321):
        pace.observe(Sample(float(second), second - 300, 0), 400 - second, 64)

    assert pace.questions_per_s == pytest.approx(1.0, rel=0.06)


def test_what_waited_for_a_resumed_run_makes_it_no_faster_for_long() -> None:
    """Three thousand records were ready when it came back; half a minute later the rate is that of the engine."""
    pace = EtaEstimator()
    pace.observe(Sample(0.0, 0, 0), 10_000, 64)
    for number in range(2, 124):
        pace.observe(Sample(LOOK_S * number, 3000 + number, 0), 7000 - number, 64)

    assert pace.questions_per_s == pytest.approx(4.0, rel=0.1)


def test_a_fleet_that_grew_is_believed_within_minutes() -> None:
    """The rate is that of the last two minutes, not that of the day before."""
    pace = EtaEstimator()
    for second in range(2000):
        pace.observe(Sample(float(second), second, 0), 1_000_000, 64)
    for second in range(130):
        pace.observe(Sample(2000.0 + second, 2000 + 10 * second, 0), 1_000_000, 64)

    assert pace.questions_per_s == pytest.approx(10, rel=0.1)


def test_what_is_kept_does_not_grow_with_the_run() -> None:
    """A run of a month has tens of millions of looks."""
    pace = EtaEstimator()
    for number in range(1500):
        pace.observe(Sample(0.05 * number, number, 0), 1_000_000, 64)

    assert len(pace._looks) <= 512
