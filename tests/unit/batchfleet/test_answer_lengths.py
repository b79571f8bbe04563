"""What is foreseen of the lengths of answers is a guess, and never a reason to end."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from batchfleet.runs.answer_lengths import survival
from producer.resume import FinishedAnswer

ENDS = st.lists(st.builds(FinishedAnswer, st.floats(0, 1000), st.integers(0, 4000)), min_size=1, max_size=50)


@given(ENDS, st.integers(0, 64), st.floats(1e-4, 10.0), st.floats(0, 100))
def test_any_answers_give_lengths(ends: list[FinishedAnswer], slots: int, s_per_token: float, idle_s: float) -> None:
    """Whatever the order and the times: after an outage, they have nothing to do with lengths."""
    now_s = max(end.at_s for end in ends) + idle_s

    found = survival(ends, 0.0, now_s, slots, s_per_token)
    shorter, lengths, longer = (found.lengths(tail) for tail in (0.3, 1.0, 3.0))

    assert lengths
    assert all(math.isfinite(length) and length >= 0 for length in lengths)
    assert lengths == sorted(lengths)
    assert all(one <= two <= three for one, two, three in zip(shorter, lengths, longer, strict=True))
