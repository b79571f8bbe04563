"""A record as one line of JSON, as users see it."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson

from producer.answers.vector_answers import vector_fields
from wire.messages import FIELDS_SINCE, Answer, Failure, Usage

ANSWER_FIELDS = {
    "id": "the question's id",
    "status": "`answered` or `failed`",
    "text": "the answer; the first if `n` asked for several",
    "texts": "all answers, only if `n` asked for several",
    "reasoning": "the model's reasoning, if the engine separates it from `text`",
    "tool_calls": "calls of `tools`, in OpenAI's form; `text` may then be empty",
    "task": "`embed`, `classify` or `score`; the next fields then replace `text`",
    "embedding": "of `input`: a list of numbers, or with `encoding_format: base64` base64 of little-endian float32",
    "embeddings": "of each text, only if `input` has several",
    "label": "the most likely class, if the model names its classes",
    "probs": "the probability of each class",
    "classes": "`label` and `probs` of each text, only if `input` has several",
    "scores": "of `documents`, in their order",
    "finish_reason": "the engine's: `stop`, `length`, ...",
    "usage": (
        "`prompt_tokens`, and `completion_tokens` of all texts together; of them `cached_tokens`, "
        "`reasoning_tokens`, if the engine says"
    ),
    "model": "the model that answered",
    "params": "the sampling parameters used, defaults included",
    "details": (
        "anything else (log probabilities, `refusal`, ...), mostly a list with one entry per text; "
        "with several texts also `reasoning` and `tool_calls` of each"
    ),
    "error": "if failed: `kind`, `message`, `retryable`, and for some kinds `evidence`",
    "worker": "the worker that made the record, if one did",
    "attempts": "how many workers were given the question",
    "latency_s": "seconds from submission to record, queueing included",
    "shared": "if the answer is that of an identical question: its id, and its run if another",
    "asked": ("hash of question, id, model and parameters, for `--update`"),
    "removed": "true if the question is gone and `--keep-removed` kept the line",
    "metadata": "the question's, unchanged",
}
"""Field of an answer line -> what it holds, for people, in Markdown."""


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is no answer line."""
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(line)
        if isinstance(found, dict) and isinstance(found.get("id"), str) and "status" in found:
            return found
    return None


def _text_fields(record: Answer) -> dict[str, Any]:
    line: dict[str, Any] = {"text": record.text}
    if record.texts is not None:
        line["texts"] = record.texts
    details = record.details or {}
    reasoning, tool_calls = record.reasoning, record.tool_calls
    if record.v < FIELDS_SINCE:
        # Records of older workers have them in their details.
        reasoning, tool_calls = (_first(details.get(name)) for name in ("reasoning", "tool_calls"))
    if reasoning:
        line["reasoning"] = reasoning
    if tool_calls:
        line["tool_calls"] = tool_calls
    line["finish_reason"] = record.finish_reason
    return line


def _counts(usage: Usage) -> dict[str, int]:
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    # Only what the engine counts.
    if usage.cached_tokens is not None:
        counts["cached_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens is not None:
        counts["reasoning_tokens"] = usage.reasoning_tokens
    return counts


def _first(values: object) -> Any:  # noqa: ANN401 (JSON)
    return values[0] if isinstance(values, list) and values else None


def answer_line(record: Answer | Failure, asked: str | None = None) -> bytes:
    """A record as users see it, with the newline: `ANSWER_FIELDS`.

    Args:
        asked: The key of its row (`producer.questions.row_keys`); None for none.
    """
    line: dict[str, Any] = {"id": record.request_id, "status": record.status}
    if isinstance(record, Answer):
        if record.vectors is None:
            line |= _text_fields(record)
        else:
            line |= {"task": record.task, **vector_fields(record)}
        line["usage"] = _counts(record.usage)
        line["model"] = record.model
        line["params"] = record.params
        if record.details is not None and record.task != "classify":
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
    if (shared := getattr(record, "shared", None)) is not None:
        line["shared"] = shared
    if asked is not None:
        line["asked"] = asked
    if record.metadata is not None:
        line["metadata"] = record.metadata
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
