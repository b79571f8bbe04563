"""Marks along a file of questions: whatever is changed, its place is found."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.questions import row_marks
from producer.questions.row_marks import MarkTaker, RowMarks, first_difference


def marks_of(rows: list[int]) -> RowMarks:
    """As `check_questions` takes them."""
    taker, state = MarkTaker(), blake2b(digest_size=16)
    for count, row in enumerate(rows, 1):
        state.update(row.to_bytes(8, "big"))
        if taker.wants(count):
            taker.take(state.digest())
    return taker.marks(len(rows))


@given(st.integers(1, 200), st.integers(0, 199), st.integers(0, 200))
def test_the_first_change_lies_among_the_rows_that_are_named(count: int, change: int, count_now: int) -> None:
    """Also where there are more rows than marks, and more or fewer than there were; what is stored comes back."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_marks, "MOST_MARKS", 16)
        rows = list(range(count_now))
        rows[change : change + 1] = [-change & 0xFFFF_FFFF] if change < count_now else []
        then, now = marks_of(list(range(count))), marks_of(rows)

        first, last = first_difference(then, now)

    assert len(then.sums) <= 16 * 3
    assert RowMarks.of(then.as_json()) == then
    shared = min(count, count_now)
    changed = change if 0 < change < shared else shared
    assert first <= changed + 1
    assert changed < last or last == shared


@pytest.mark.parametrize(
    "stored", [None, [], {}, {"count": 1, "every": 0, "sums": ""}, {"count": 1, "every": 1, "sums": "?"}]
)
def test_what_are_no_marks_is_none(stored: object) -> None:
    """An earlier version kept none."""
    assert RowMarks.of(stored) is None
