"""How many requests are open at a server that is simulated, with a clock that nobody waits for."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.openai.window import LONGEST_PATIENCE, START, RequestWindow

MAXIMUM = 64


@dataclass
class Outcome:
    """What questions cost at a server. `sizes`: of the window, at each answer."""

    took_s: float = 0.0
    refusals: int = 0
    most_open: int = 0
    sizes: list[int] = field(default_factory=list)


def ask(
    window: RequestWindow, questions: int, takes_s: Callable[[int], float], limit: int = 10**9, began: float = 0.0
) -> Outcome:
    """Ask as the engine does: as many at once as the window says; what is refused is asked again.

    `takes_s`: an answer, with so many open.
    """
    outcome, now, tick_at = Outcome(), began, began + 1.0
    left, open_now, numbers = questions, 0, itertools.count()
    events: list[tuple[float, int, bool, float, int]] = []
    while left or open_now:
        while left and open_now < window.size:
            left, open_now = left - 1, open_now + 1
            is_refused = open_now > limit
            done_at = now + (0.001 if is_refused else takes_s(open_now))
            heapq.heappush(events, (done_at, next(numbers), is_refused, now, open_now))
        outcome.most_open = max(outcome.most_open, open_now)
        if events[0][0] > tick_at:
            now, tick_at = tick_at, tick_at + 1.0
            window.tick(now, is_full=open_now >= window.size)
            continue
        now, _, is_refused, sent_at, open_then = heapq.heappop(events)
        is_full = open_now >= window.size
        open_now -= 1
        if is_refused:
            left, outcome.refusals = left + 1, outcome.refusals + 1
            window.refused(now, sent_at=sent_at, open_then=open_then)
        else:
            window.answered(now, sent_at=sent_at, open_then=open_then, is_full=is_full and left > 0)
            outcome.sizes.append(window.size)
    outcome.took_s = now - began
    return outcome


def fixed_s(questions: int, size: int, takes_s: Callable[[int], float]) -> float:
    """With a fixed number at once."""
    return ask(RequestWindow(size, size, now=0.0), questions, takes_s).took_s


@pytest.mark.parametrize("limit", [1, 2, 3, 8, 11, 20])
@pytest.mark.parametrize("answer_s", [0.05, 1.0, 30.0])
def test_a_server_s_limit_is_found_with_few_refusals(limit: int, answer_s: float) -> None:
    """500 questions cost fewer than 60 refusals, and no more than a tenth of the time above the best fixed setting."""
    window = RequestWindow(MAXIMUM, now=0.0)

    outcome = ask(window, 500, lambda _: answer_s, limit)

    assert outcome.refusals < 60
    assert outcome.took_s <= fixed_s(500, limit, lambda _: answer_s) / 0.9
    assert limit // 2 <= window.size <= limit + 1


def test_the_limit_is_known_within_a_minute() -> None:
    """Whatever happens later, no more than one too many is tried at a time."""
    window = RequestWindow(MAXIMUM, now=0.0)
    ask(window, 8 * 60, lambda _: 1.0, limit=8)

    later = ask(window, 2000, lambda _: 1.0, limit=8, began=60.0)

    assert later.most_open <= 9
    assert later.refusals <= 2000 / 8 / 8


def test_a_server_without_a_limit_gets_the_maximum() -> None:
    """In a few seconds, however long its answers take: it would have refused before."""
    window = RequestWindow(MAXIMUM, now=0.0)

    outcome = ask(window, 200, lambda _: 600.0)

    assert outcome.refusals == 0
    assert outcome.most_open == MAXIMUM
    assert outcome.took_s <= fixed_s(200, MAXIMUM, lambda _: 600.0) + 5


def test_a_limit_that_is_lifted_is_noticed() -> None:
    """The longer nothing is refused, the larger the steps up."""
    window = RequestWindow(MAXIMUM, now=0.0)
    ask(window, 500, lambda _: 1.0, limit=4)

    ask(window, 8 * LONGEST_PATIENCE * 8, lambda _: 1.0, began=1000.0)

    assert window.size == MAXIMUM


def test_a_burst_of_refusals_halves_once() -> None:
    """They are about one moment; and the first that was refused shows what the server takes."""
    window = RequestWindow(MAXIMUM, MAXIMUM, now=0.0)
    for open_then in range(64, 40, -1):
        window.refused(1.0 + open_then / 1000, sent_at=0.5, open_then=open_then)
    assert window.size == 32

    window.refused(3.0, sent_at=2.0, open_then=32)
    assert window.size == 16


def test_latency_that_collapses_halves() -> None:
    """A server that thrashes with more than 20 at once, so that it answers less in all, is kept near 16."""
    window = RequestWindow(MAXIMUM, now=0.0)

    outcome = ask(window, 3000, lambda at_once: 1.0 if at_once <= 20 else at_once / 4)

    assert max(outcome.sizes) > 20
    later = outcome.sizes[len(outcome.sizes) // 2 :]
    assert sum(later) / len(later) < 28


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0])
def test_latency_that_grows_with_the_work_is_no_collapse(gain: float) -> None:
    """Of a server that answers one at a time, as of one that batches, the rate does not fall: nothing is halved."""
    chance = random.Random(7)  # noqa: S311 (a simulation)
    window = RequestWindow(MAXIMUM, now=0.0)

    outcome = ask(window, 3000, lambda at_once: at_once ** (1 - gain) * chance.lognormvariate(0, 0.7))

    assert outcome.sizes[-1] == MAXIMUM
    assert sorted(outcome.sizes) == outcome.sizes


def test_what_nobody_asked_for_does_not_grow_the_window() -> None:
    """A few questions now and then prove nothing about many."""
    window = RequestWindow(MAXIMUM, now=0.0)
    for second in range(1000):
        window.answered(float(second), sent_at=float(second) - 0.1, open_then=1, is_full=False)
        window.tick(float(second), is_full=False)

    assert window.size == START


EVENTS = st.lists(
    st.tuples(st.sampled_from(["answered", "refused", "tick", "restart"]), st.integers(0, 100), st.floats(0, 5)),
    max_size=300,
)


@given(events=EVENTS, maximum=st.integers(1, 100))
def test_the_size_is_always_possible(events: list[tuple[str, int, float]], maximum: int) -> None:
    """From 1 to the maximum, whatever happens in whatever order."""
    window, now = RequestWindow(maximum, now=0.0), 0.0
    for what, number, passed_s in events:
        now += passed_s
        if what == "answered":
            window.answered(now, sent_at=now - number / 10, open_then=1 + number, is_full=number % 2 == 0)
        elif what == "refused":
            window.refused(now, sent_at=now - number / 10, open_then=number)
        elif what == "tick":
            window.tick(now, is_full=number % 2 == 0)
        else:
            window.restart(now)
        assert 1 <= window.size <= maximum
