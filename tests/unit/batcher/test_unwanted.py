"""Which questions nobody wants any more."""

from __future__ import annotations

import pytest

from batcher.maintenance.unwanted import Unwanted
from tests.builders import a_question

NOBODY_WANTS = Unwanted(runs=frozenset({("cancelled", "e2")}), now=100.0)


@pytest.mark.parametrize(
    ("run", "epoch", "deadline", "kind"),
    [
        ("wanted", "e2", None, None),
        ("wanted", "e2", 100.5, None),
        ("wanted", "e2", 100.0, "expired"),
        ("cancelled", "e2", None, "cancelled"),
        ("cancelled", "e2", 99.0, "cancelled"),
        ("cancelled", "e3", None, None),
    ],
)
def test_what_is_cancelled_or_too_late_ends(run: str, epoch: str, deadline: float | None, kind: str | None) -> None:
    """Whoever cancelled a run is told that, not that its time was up; another run of the same id is not meant."""
    error = NOBODY_WANTS.judge(a_question(run=run, epoch=epoch, deadline=deadline))

    assert (error.kind if error else None) == kind
    assert NOBODY_WANTS.may_end(run, deadline) or error is None
