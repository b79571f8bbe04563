"""What the scoreboard calls lost is lost, and nothing else."""

from __future__ import annotations

from tests.chaos.conservation import lost_among
from tests.chaos.monitor import Instant

NEVER_TAKEN, WAITING, AT_WORK, RECORD_WAITS, NOWHERE, RECORD_GONE = (("run", index) for index in range(6))
MISSING = {NEVER_TAKEN, WAITING, AT_WORK, RECORD_WAITS, NOWHERE, RECORD_GONE}
SEEN = Instant(
    untouched=[WAITING],
    begun=[AT_WORK, RECORD_WAITS],
    accepted=MISSING - {NEVER_TAKEN},
    done={RECORD_WAITS, RECORD_GONE},
)


def test_a_question_that_is_on_its_way_or_was_never_asked_is_not_lost() -> None:
    """A fleet that a busy machine was too slow for has lost only what is in no place any more."""
    assert lost_among(MISSING, SEEN, {RECORD_WAITS}, ended=False) == {NOWHERE, RECORD_GONE}


def test_what_an_ended_producer_has_no_line_for_is_lost() -> None:
    """Wherever it is: nobody will write it."""
    assert lost_among(MISSING, SEEN, {RECORD_WAITS}, ended=True) == MISSING


def test_a_fleet_that_never_started_has_lost_nothing() -> None:
    """Redis knows none of its questions."""
    assert lost_among(MISSING, Instant([], [], set(), set()), set(), ended=False) == set()
