"""What bounds a submission, against a real Redis: models, bytes, and what is too much by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from producer.asking import Asked
from producer.options import ProducerOptions
from producer.sending import Sender
from tests.submitting import KEYS, Submitter
from wire.errors import UsageError

ROOMY = ProducerOptions(run_window=1_000_000)


def asked(number: int, model: str | None = None) -> Asked:
    """A question at this position, for this model."""
    return Asked(number, number + 1, f"q{number}", "What?", None, model, {}, 0, None, None)


def test_questions_for_more_models_than_allowed_are_an_error(client: redis.Redis) -> None:
    """With the setting's name; what was accepted before goes on, and of this submission nothing was."""
    sender = Sender(client, KEYS, "many", {"questions": "many"}, 4, replace(ROOMY, max_models=2))
    sender.open()
    assert sender.send(0, 2, [asked(0, "a"), asked(1, "b")], "stub").outcome == "ok"

    with pytest.raises(UsageError, match=r"limits\.max_models = 2"):
        sender.send(2, 4, [asked(2, "a"), asked(3, "c")], "stub")

    assert client.hget(KEYS.run("many"), "accepted") == b"2"
    assert client.scard(KEYS.queues) == 2


def test_priorities_of_one_model_count_as_queues(client: redis.Redis) -> None:
    """Each has a stream of its own, and those are what is bounded."""
    submitter = Submitter(client, "run", 10, replace(ROOMY, max_models=2))
    assert submitter.offer(1, priority=0).outcome == submitter.offer(1, priority=9).outcome == "ok"

    with pytest.raises(UsageError, match="max_models"):
        submitter.offer(1, priority=5)


def test_bytes_are_bounded(client: redis.Redis) -> None:
    """A few long prompts fill a fleet as well as many short ones; the message has the figures and the setting's name."""
    submitter = Submitter(client, "run", 1000, replace(ROOMY, max_pending_bytes=2048))
    while (sent := submitter.offer(5)).outcome == "ok":
        pass

    assert sent.outcome == "pending"
    assert "of at most 200000 questions and 2 KiB" in sent.detail
    assert int(client.hget(KEYS.pending, "bytes") or 0) <= 2048


def test_what_is_too_much_by_itself_passes_when_nothing_else_is_pending(client: redis.Redis) -> None:
    """Otherwise it would wait for ever."""
    submitter = Submitter(client, "run", 1000, replace(ROOMY, max_pending_questions=3))

    assert submitter.offer(5).outcome == "ok"
    assert submitter.offer(5).outcome == "pending"
