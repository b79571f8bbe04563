"""What bounds a submission, against a real Redis: models, bytes, and what is too much by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis
from msgspec import structs

from producer.bounded_queue import BoundedQueue
from producer.options import ProducerOptions
from producer.questions.question_parser import ParsedQuestion
from producer.sender import CHUNK_BYTES, CHUNK_QUESTIONS, Sender
from producer.stream_source import PendingQuestion, StreamSource
from tests.submissions import KEYS, Submitter
from wire.codec import decode_record
from wire.errors import UsageError
from wire.messages import Failure

ROOMY = ProducerOptions(run_window=1_000_000)


def asked(number: int, model: str | None = None) -> ParsedQuestion:
    """A question at this position, for this model."""
    return ParsedQuestion(number, number + 1, f"q{number}", "What?", None, model, {}, 0, None, None)


def test_questions_for_more_models_than_allowed_are_an_error(client: redis.Redis) -> None:
    """With the setting's name; what was accepted before is still answered, and of this submission nothing was."""
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
    """A few long prompts fill a fleet as well as many short ones.

    The message has the figures and the setting's name.
    """
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


def test_a_question_that_nobody_would_carry_fails_at_once(client: redis.Redis) -> None:
    """The batcher takes what is that large for no question, and its run would wait for it in vain.

    Its neighbour is accepted.
    """
    sender = Sender(client, KEYS, "run", {"questions": "run"}, 2, replace(ROOMY, max_packed_bytes=2000))
    sender.open()

    sent = sender.send(0, 2, [asked(0), structs.replace(asked(1), metadata={"vector": [0.5] * 300})], "stub")

    records: Any = client.xrange(KEYS.records("run"))
    failure = decode_record(records[0][1][b"a"])
    assert sent.outcome == "ok"
    assert client.xlen(KEYS.questions("stub", 0)) == len(records) == 1
    assert isinstance(failure, Failure)
    assert (failure.request_id, failure.error.kind) == ("q1", "invalid_question")
    assert "limits.max_question_bytes" in failure.error.message


@pytest.mark.parametrize("field", ["prompt", "messages", "metadata", "params"])
def test_a_submission_is_bounded_in_bytes_wherever_they_are(field: str) -> None:
    """What takes longer to send than the time-out would be sent again for ever.

    A script also keeps Redis to itself while it runs.
    """
    text = "x" * 300_000
    contents: dict[str, Any] = {
        "prompt": text,
        "messages": [{"role": "user", "content": text}],
        "metadata": {"page": text},
        "params": {"guided_regex": text},
    }
    inbox: BoundedQueue[PendingQuestion] = BoundedQueue(None)
    for number in range(10):
        inbox.offer(PendingQuestion(structs.replace(asked(number), **{field: contents[field]})))

    chunk = StreamSource("run-1", inbox).chunk(CHUNK_QUESTIONS, CHUNK_BYTES, 0.0)

    assert chunk is not None
    assert 2 <= len(chunk.questions) <= 4
