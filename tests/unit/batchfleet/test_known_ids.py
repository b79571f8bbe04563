"""Ids of a run of the Python client: each comes once, however long the run is."""

from __future__ import annotations

import pytest

from batchfleet.client.known_ids import KnownIds
from batchfleet.client.question_numbers import QuestionNumbers
from batchfleet.client.questions import QuestionLike
from batchfleet.client.session import Session
from batchfleet.settings.load import load_settings
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.samples import Samples
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
    numbering = QuestionNumbers(a_session(), "run", {})
    for number in range(30_000):
        numbering.give({"id": f"q{number}", "question": "Why?"})

    (again,) = numbering.give({"id": "q7", "question": "Why?"})
    without = [given for _ in range(2) for given in numbering.give("Why?")]

    assert isinstance(again.asked, Invalid)
    assert "its id 'q7' is already that of an earlier question" in again.asked.reason
    assert len(without) == 2
    assert all(isinstance(given.asked, ParsedQuestion) for given in without)


def test_samples_of_a_programs_questions_have_seeds_and_ids_of_their_own() -> None:
    """As those of a file; an earlier attempt that ended among the samples of a question is resumed there."""
    asked: list[QuestionLike] = [{"id": "q1", "question": "Why?", "params": {"seed": 7}}, "How?"]
    begun = QuestionNumbers(a_session(), "run", {"temperature": 0.5}, samples=Samples(3))
    given = [one for question in asked for one in begun.give(question)]

    resumed = QuestionNumbers(
        a_session(), "run", {"temperature": 0.5}, samples=Samples(3), resume_at=4, mark=given[3].mark
    )
    again = [one for question in asked for one in resumed.give(question)]
    with pytest.raises(UsageError, match="temperature"):
        QuestionNumbers(a_session(), "run", {"temperature": 0}, samples=Samples(3)).give("Why?")

    first = given[0].asked
    questions = [one.asked for one in given if isinstance(one.asked, ParsedQuestion)]
    assert [one.request_id for one in questions[:3]] == ["q1#1", "q1#2", "q1#3"]
    assert [one.params["seed"] for one in questions] == [7, 8, 9, 0, 1, 2]
    assert [one.index for one in questions] == list(range(6))
    assert isinstance(first, ParsedQuestion)
    assert first.model == "m"
    assert again == given[4:]


def a_session() -> Session:
    """One that needs no Redis, as it knows its model."""
    settings = {"redis.url": "redis://localhost", "model.generator_settings.model": "m"}
    return Session(load_settings(None, {}, settings).settings, None)
