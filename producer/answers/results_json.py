"""Answers -> one JSON object `{"metadata": ..., "results": [...]}`.

Its field names are those of distllm's evaluation scripts, whose readers know it.

There is no score in it: scoring is a step of its own, which leaves the answers as they are.
"""

from __future__ import annotations

from typing import Any

from producer.answers.columns import OF_VECTORS
from producer.answers.reader import Answered
from producer.questions.question_parser import Invalid, ParsedQuestion

_VECTORS = sorted(OF_VECTORS)


def result_of(answered: Answered) -> dict[str, Any]:
    """One entry of `results`. `skipped` is true for failures, which have an `error` in place of an answer."""
    fields = answered.fields
    metadata = fields.get("metadata") or {}
    result = {
        "question_id": answered.index,
        "id": fields["id"],
        "question": _text_of(answered.asked),
        "reference_answer": metadata.get("answer"),
    }
    if fields["status"] == "failed":
        return result | {
            "error": fields["error"]["message"],
            "error_kind": fields["error"]["kind"],
            "skipped": True,
            "metadata": metadata,
        }
    kept = {
        name: fields[name]
        for name in (
            "reasoning",
            "tool_calls",
            "finish_reason",
            "usage",
            "model",
            "params",
            "texts",
            "details",
            *_VECTORS,
        )
        if name in fields
    }
    time = {"model_time_seconds": fields["latency_s"]} if "latency_s" in fields else {}
    return result | {"model_answer": fields.get("text"), "skipped": False} | time | kept | {"metadata": metadata}


def _text_of(asked: ParsedQuestion | Invalid | None) -> str | None:
    """What was asked, in words: the prompt, or the last message that is a text."""
    if not isinstance(asked, ParsedQuestion):
        return None
    contents = [_words(message.get("content")) for message in asked.messages or ()]
    if asked.inputs is not None:
        return asked.query or next((text for text in asked.inputs if isinstance(text, str)), None)
    return asked.prompt or next((content for content in reversed(contents) if content is not None), None)


def _words(content: object) -> str | None:
    """Those of a message, also beside images."""
    parts = content if isinstance(content, list) else []
    texts = [str(part["text"]) for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return content if isinstance(content, str) else "\n".join(texts) or None
