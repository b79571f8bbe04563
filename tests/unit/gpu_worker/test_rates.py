"""What `status` calls the rate of a worker is its rate now.

A run that has just begun, a pause and a slow engine are told as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gpu_worker.reports.rates import Rates, RateSample
from gpu_worker.reports.worker_report import Report
from tests.builders import an_answer
from wire.messages import Usage

TOKENS = 250


def watched(looks: Iterable[tuple[float, int, bool]]) -> list[tuple[float, float]]:
    """The rates after each look: (at, done, whether any were in the engine)."""
    rates, found = Rates(), []
    for at_s, done, working in looks:
        rates.observe(RateSample(at_s, done, TOKENS * done, working))
        found.append(rates.per_s())
    return found


def idle(from_s: int, to_s: int, done: int = 0) -> list[tuple[float, int, bool]]:
    """A look each second at an engine that is empty."""
    return [(float(second), done, False) for second in range(from_s, to_s)]


def test_idle_time_before_a_run_is_no_part_of_its_rate() -> None:
    """An engine that makes 53 a second is seen to do so 8 s after its run began.

    Before that it waited for 22 s, or for an hour.
    """
    ramp = [0, 2, 10, 36, 89, 142, 195, 248, 301]
    for waited_s in (22, 3600):
        run = [(float(waited_s + second), done, True) for second, done in enumerate(ramp)]

        answers_per_s, tokens_per_s = watched([*idle(0, waited_s), *run])[-1]

        assert answers_per_s == pytest.approx(53, rel=0.02)
        assert tokens_per_s == pytest.approx(53 * TOKENS, rel=0.02)


def test_a_change_of_rate_is_seen_within_seconds() -> None:
    """Neither what was a minute ago nor the mean since the start, but what is now."""
    fast = [(float(second), 100 * second, True) for second in range(60)]
    slow = [(60.0 + second, 6000 + 40 * second, True) for second in range(8)]

    assert watched([*fast, *slow])[-1][0] == pytest.approx(40)


def test_a_worker_at_rest_makes_nothing() -> None:
    """What it did before its last question ended is no rate of now.

    A few seconds without questions are not yet a rest.
    """
    run = [(float(second), 50 * second, True) for second in range(20)]

    found = watched([*run, *idle(20, 40, done=950)])

    assert found[24][0] > 10
    assert found[-1] == (0.0, 0.0)


def test_a_slow_engine_has_a_rate_too() -> None:
    """One answer in four seconds: the window is as long as it needs to be."""
    looks = [(float(second), second // 4, True) for second in range(120)]

    assert all(answers_per_s == pytest.approx(0.25, abs=0.05) for answers_per_s, _ in watched(looks)[60:])


def test_a_question_now_and_then_is_no_question_each_second() -> None:
    """One that is asked and answered between two looks, after a minute of silence, is one in the shortest window."""
    assert watched([*idle(0, 60), (60.0, 1, False)])[-1][0] == pytest.approx(0.2)


def test_work_that_came_and_went_between_two_looks_counts() -> None:
    """200 questions that cost next to nothing are begun and done within one heartbeat."""
    assert watched([*idle(0, 60), (60.0, 200, False)])[-1][0] == pytest.approx(200)


def test_an_engine_that_hangs_is_seen_to_slow_down() -> None:
    """Questions in it and no answers: the rate falls, and after half a minute it is 0."""
    run = [(float(second), 50 * second, True) for second in range(20)]
    hanging = [(20.0 + second, 950, True) for second in range(32)]

    found = [answers_per_s for answers_per_s, _ in watched([*run, *hanging])]

    assert found[19] == pytest.approx(50)
    assert found[19:] == sorted(found[19:], reverse=True)
    assert found[-1] == 0


def test_a_report_says_the_rates() -> None:
    """Of answers and of their tokens, with failures among what is done."""
    clock = [0.0]
    report = Report("stub", "stub", 64, state="running", in_flight=8, now=lambda: clock[0])
    for second in range(40):
        clock[0] = float(second)
        fields = report.fields()
        report.counts.add(an_answer(usage=Usage(prompt_tokens=1, completion_tokens=50)))

    assert (float(fields["answers_per_s"]), float(fields["tokens_per_s"])) == (1.0, 50.0)
