"""What a program did not take of a run comes again, whatever ends the run early."""

from __future__ import annotations

from batchfleet.client.outbox import Outbox
from tests.builders import an_answer
from wire.errors import FleetError

RECORDS = [(f"{number}-0".encode(), an_answer(f"q{number}")) for number in range(3)]


def test_what_an_error_takes_away_does_not_count_as_handled() -> None:
    """Nothing that was held for the program is acknowledged, even though nothing is held any more."""
    outbox = Outbox()
    outbox.put(RECORDS)
    outbox.take()
    outbox.acknowledge()

    outbox.finish(FleetError("interrupted"))

    assert outbox.settle(b"2-0") == b"0-0"


def test_what_comes_after_an_error_is_not_given_out() -> None:
    """It comes to whoever resumes the run, and may not come twice."""
    outbox = Outbox()
    outbox.finish(FleetError("interrupted"))

    outbox.put(RECORDS)

    assert outbox.settle(b"2-0") == b""


def test_all_that_came_is_acknowledged_once_the_program_has_handled_it() -> None:
    """What was received and not put counts as handled with it."""
    outbox = Outbox()
    outbox.put(RECORDS[:1])
    outbox.take()
    assert outbox.settle(b"2-0") == b""

    outbox.acknowledge()

    assert outbox.settle(b"2-0") == b"2-0"
