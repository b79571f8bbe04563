"""Questions and other values for tests, with defaults for what a test does not care about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from producer.questions.sources import Source
from wire.keys import Keys
from wire.messages import Answer, Question, Usage


def a_question(request_id: str = "q1", **fields: Any) -> Question:  # noqa: ANN401 (any field of a question)
    """A question to the stub of one run."""
    defaults: dict[str, Any] = {"run": "run-1", "index": 0, "model": "stub", "submitted_at": 0.0}
    if "messages" not in fields:
        defaults["prompt"] = f"What is {request_id}?"
    return Question(request_id=request_id, **{**defaults, **fields})


def an_answer(request_id: str = "q1", **fields: Any) -> Answer:  # noqa: ANN401 (any field of an answer)
    """An answer to it."""
    defaults: dict[str, Any] = {
        "run": "run-1",
        "index": 0,
        "text": "42",
        "finish_reason": "stop",
        "usage": Usage(prompt_tokens=3, completion_tokens=1),
        "model": "stub",
        "params": {},
    }
    return Answer(request_id=request_id, **{**defaults, **fields})


def epoch_of(client: redis.Redis, run: str) -> str:
    """What tells this run from an earlier one of the same id."""
    found: Any = client.hget(Keys().run(run), "epoch")
    return (found or b"").decode()


def a_source(path: Path) -> Source:
    """A single file of questions, as it stands."""
    return Source((path,))
