"""Ids of a run of the Python client: each comes once, however long the run is."""

from __future__ import annotations

import pytest

from batchfleet.client.known_ids import KnownIds
from batchfleet.client.question_numbers import QuestionNumbers
from batchfleet.client.session import Session
from batchfleet.settings.load import load_settings
from producer.questions.question_parser import Invalid, ParsedQuestion
from wire.errors import UsageError


def test_an_id_is_known_however_much_later_it_comes_again() -> None:
    """Among 200 000."""
    known = KnownIds()

    assert all(known.add(f"q{number}") for number in range(200_000))
    assert not any(known.add(f"q{number}") for number in range(0, 200_000, 997))


def test_what_is_kept_is_bounded() -> None:
    """And says so, rather than forget."""
    known = KnownIds(most=2)
    known.add("a")
    known.add("b")

    with pytest.raises(UsageError, match="begin another run"):
        known.add("c")
    assert not known.add("a")


def test_a_question_whose_id_came_long_ago_becomes_a_failure() -> None:
    """Of kind `invalid_question`, with the reason; questions without an id of their own never meet."""
    session = Session(
        load_settings(None, {}, {"redis.url": "redis://localhost", "model.generator_settings.model": "m"}).settings,
        None,
    )
    numbering = QuestionNumbers(session, "run", {})
    for number in range(30_000):
        numbering.give({"id": f"q{number}", "question": "Why?"})

    again = numbering.give({"id": "q7", "question": "Why?"})
    without = [numbering.give("Why?") for _ in range(2)]

    assert again is not None
    assert isinstance(again.asked, Invalid)
    assert "its id 'q7' is already that of an earlier question" in again.asked.reason
    assert all(given is not None and isinstance(given.asked, ParsedQuestion) for given in without)
