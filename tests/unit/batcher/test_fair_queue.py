"""Runs take turns in the line of a queue, and nothing in it is lost or doubled by that."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batcher.fair_queue import FairQueue
from batcher.packing import Waiting

RUNS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=60)


def a_line(*runs: bytes) -> FairQueue:
    """One question of each of these runs, in this order of arrival; its bytes are its place in that."""
    line = FairQueue()
    for number, run in enumerate(runs):
        line.append(Waiting(f"{number}-0".encode(), bytes([number]), 0.0, run))
    return line


def order(questions: list[Waiting]) -> str:
    """Whose questions they are, one letter each."""
    return b"".join(question.run for question in questions).decode()


def test_a_late_run_takes_its_turn_at_once() -> None:
    """Thousands of questions before it are of one run, and count for one turn."""
    line = a_line(*[b"a"] * 50, *[b"b"] * 3)

    assert order(line.front(8)) == "abababaa"


def test_turns_go_on_where_they_stopped() -> None:
    """Also if only one question is handed over at a time."""
    line = a_line(*[b"a"] * 4, *[b"b"] * 4, *[b"c"] * 2)

    taken = ""
    while line:
        front = line.front(1)
        line.drop(front)
        taken += order(front)

    assert taken == "abcabcabab"


def test_a_batch_takes_the_turn_of_the_run_that_came_last() -> None:
    """A run that has had nothing here meanwhile comes anew."""
    line = a_line(b"a", b"b", b"a")
    assert line.newest(line.front(3)) == b"b"

    line.drop(line.front(2))
    line.append(Waiting(b"9-0", b"x", 0.0, b"b"))
    line.drop(line.front(1))
    line.append(Waiting(b"10-0", b"x", 0.0, b"a"))

    assert line.newest(line.front(2)) == b"a"


@given(RUNS, st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(0, 59))), max_size=12))
def test_whatever_is_taken_out_the_rest_stays_in_order(runs: list[bytes], steps: list[tuple[int, set[int]]]) -> None:
    """Every question is handed over once or forgotten, those of a run in their order.

    Counts and bytes are true at every moment.
    """
    line = a_line(*runs)
    handed: list[Waiting] = []
    forgotten: set[int] = set()
    for most, lost in steps:
        front = line.front(most)
        assert len(front) == min(most, len(line))
        counts = Counter(question.run for question in line)
        # As even as what is there allows.
        taken = Counter(question.run for question in front)
        assert all(taken[one] - taken[other] <= 1 for one in taken for other in counts if taken[other] < counts[other])
        line.drop(front)
        handed += front
        line.forget({f"{number}-0".encode() for number in lost})
        forgotten |= lost - {question.data[0] for question in handed}
        assert (len(line), line.bytes) == (len(list(line)), sum(len(question.data) for question in line))
    left = list(line)
    seen = [question.data[0] for question in [*handed, *left]]
    assert Counter(seen) == Counter(set(range(len(runs))) - forgotten)
    for run in set(runs):
        of_run = [question.data[0] for question in [*handed, *left] if question.run == run]
        assert of_run == sorted(of_run)
