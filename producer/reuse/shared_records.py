"""Records that another question's answer was taken for. They are never sent, only written."""

from __future__ import annotations

from typing import Any

from wire.messages import Answer, Failure, JsonObject, Usage

Taken = tuple[int, str, JsonObject | None]
"""The question that takes an answer: its index, id and metadata."""


class SharedAnswer(Answer, frozen=True, kw_only=True, tag="answered"):
    """An answer to an identical question.

    Attributes:
        shared: `{"with": ID}` of that question, and `"run"` if it was in an earlier run.
    """

    shared: JsonObject


class SharedFailure(Failure, frozen=True, kw_only=True, tag="failed"):
    """The failure of an identical question."""

    shared: JsonObject


def shared_record(record: Answer | Failure, question: Taken) -> SharedAnswer | SharedFailure:
    """The record of one question for another one of its run."""
    index, request_id, metadata = question
    fields = {name: getattr(record, name) for name in record.__struct_fields__ if name != "shared"}
    fields |= {"index": index, "request_id": request_id, "metadata": metadata, "shared": {"with": record.request_id}}
    # Nobody worked on it.
    fields |= {"worker": None, "attempts": 0, "latency_s": None}
    return SharedAnswer(**fields) if isinstance(record, Answer) else SharedFailure(**fields)


def from_line(fields: dict[str, Any], question: Taken, *, run: str, of_run: str | None = None) -> SharedAnswer | None:
    """An answer line for another question; None if it is none that can be shared.

    Args:
        run: That of the question.
        of_run: That of the line, if it is another.
    """
    index, request_id, metadata = question
    usage = fields.get("usage")
    own = ("text", "texts", "reasoning", "tool_calls", "finish_reason", "model", "params", "details")
    if fields.get("status") != "answered" or not isinstance(usage, dict) or not isinstance(fields.get("text"), str):
        return None
    origin = fields.get("shared") or {"with": fields.get("id"), **({"run": of_run} if of_run else {})}
    try:
        return SharedAnswer(
            run=run,
            index=index,
            request_id=request_id,
            attempts=0,
            metadata=metadata,
            usage=Usage(**usage),
            shared=origin,
            **{name: fields[name] for name in own if name in fields},
        )
    except TypeError:
        return None
