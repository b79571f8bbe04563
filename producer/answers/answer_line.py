"""A record as one line of JSON, as users see it."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson

from wire.messages import Answer, Failure

ANSWER_FIELDS = {
    "id": "the question's id",
    "status": "`answered` or `failed`; an error is never in the place of an answer",
    "text": "the answer; the first one if `n` asked for several",
    "texts": "all answers, only if `n` asked for several",
    "finish_reason": "as the engine names it: `stop`, `length`, ...",
    "usage": (
        "`prompt_tokens`, and `completion_tokens` of all texts together; of them `cached_tokens`, "
        "`reasoning_tokens`, if the server says"
    ),
    "model": "the model that answered",
    "params": "the sampling parameters that were really used, defaults included",
    "details": (
        "what else was asked for or came (log probabilities, `reasoning`, `tool_calls`, `refusal`, ...), "
        "mostly "
        "a list with one for each text"
    ),
    "error": "only if failed: `kind`, `message`, `retryable`, and for some kinds `evidence`",
    "worker": "the worker that made the record; missing if no worker did",
    "attempts": "how many workers were given the question; 0 if none was",
    "latency_s": "seconds from submission to record, queueing included, on the clock of the Redis server",
    "metadata": "the question's, untouched",
}
"""Field of an answer line -> what it holds, for people, in Markdown."""


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is no answer line."""
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(line)
        if isinstance(found, dict) and isinstance(found.get("id"), str) and "status" in found:
            return found
    return None


def answer_line(record: Answer | Failure) -> bytes:
    """A record as users see it, with the newline: `ANSWER_FIELDS`."""
    line: dict[str, Any] = {"id": record.request_id, "status": record.status}
    if isinstance(record, Answer):
        line["text"] = record.text
        if record.texts is not None:
            line["texts"] = record.texts
        line["finish_reason"] = record.finish_reason
        # Of the last two, only what the engine counts.
        line["usage"] = {
            name: count for name in record.usage.__struct_fields__ if (count := getattr(record.usage, name)) is not None
        }
        line["model"] = record.model
        line["params"] = record.params
        if record.details is not None:
            line["details"] = record.details
    else:
        error = record.error
        line["error"] = {"kind": error.kind, "message": error.message, "retryable": error.retryable}
        if error.evidence is not None:
            line["error"]["evidence"] = error.evidence
    if record.worker is not None:
        line["worker"] = record.worker
    line["attempts"] = record.attempts
    if record.latency_s is not None:
        line["latency_s"] = record.latency_s
    if record.metadata is not None:
        line["metadata"] = record.metadata
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
