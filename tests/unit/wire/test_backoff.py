"""The back-off that all loops share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.backoff import Backoff, pause_s


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(1, 100))
def test_a_pause_doubles_up_to_the_longest_and_never_falls_below_half_of_that(
    failures: int, first_s: float, factor: float
) -> None:
    """However many failures: never no pause at all, never one beyond the limit, and no overflow."""
    longest_s = first_s * factor
    expected_s = min(longest_s, first_s * 2.0 ** min(failures - 1, 1000))

    assert expected_s / 2 <= pause_s(failures, first_s=first_s, longest_s=longest_s) <= expected_s


def test_a_success_makes_the_next_pause_short_again() -> None:
    """What was long ago does not slow down the next recovery."""
    backoff = Backoff(first_s=1.0, longest_s=64.0)
    pauses = [backoff.next_s() for _ in range(8)]
    backoff.reset()

    assert pauses[-1] >= 32.0
    assert backoff.next_s() <= 1.0
