"""Which questions nobody wants any more."""

from __future__ import annotations

import pytest

from batcher.maintenance.unwanted import Unwanted

NOBODY_WANTS = Unwanted(runs=frozenset({"cancelled"}), now=100.0)


@pytest.mark.parametrize(
    ("run", "deadline", "kind"),
    [
        ("wanted", None, None),
        ("wanted", 100.5, None),
        ("wanted", 100.0, "expired"),
        ("cancelled", None, "cancelled"),
        ("cancelled", 99.0, "cancelled"),
    ],
)
def test_what_is_cancelled_or_too_late_ends(run: str, deadline: float | None, kind: str | None) -> None:
    """Whoever cancelled a run is told that, not that its time was up."""
    error = NOBODY_WANTS.judge(run, deadline)

    assert (error.kind if error else None) == kind
