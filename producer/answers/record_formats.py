"""From a line or row of any answers file to the fields of an answer line.

It may be our own, a row of our tables, or OpenAI's batch output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from producer.answers.columns import COLUMNS, ColumnType

_OK = 200
_FROM_TEXT: dict[ColumnType, Callable[[str], Any]] = {
    "integer": int,
    "number": float,
    "boolean": lambda text: text == "true",
    "json": orjson.loads,
    "vector": orjson.loads,
}


def record_of(fields: object) -> dict[str, Any] | None:
    """The fields as an answer line has them; None if it is no answer."""
    if not isinstance(fields, dict):
        return None
    if isinstance(fields.get("custom_id"), str) and ("response" in fields or "error" in fields):
        return _from_openai(fields)
    if "error_kind" in fields or "prompt_tokens" in fields:
        # The reverse of `columns.row_of`. In CSV an empty cell is nothing; only an answer's own texts are then empty
        # ones.
        flat = {name: _from_cell(fields.get(name), kind) for name, kind in COLUMNS.items()}
        tokens = {name: flat.pop(name) or 0 for name in ("prompt_tokens", "completion_tokens")}
        error = {name: flat.pop(f"error_{name}") for name in ("kind", "message", "retryable", "evidence")}
        if flat["status"] == "failed":
            flat["error"] = {name: value for name, value in error.items() if value is not None}
        else:
            own = ("model",) if flat.get("task") else ("text", "finish_reason", "model")
            flat |= {name: flat[name] or "" for name in own}
            flat["usage"] = tokens
        fields = {name: value for name, value in flat.items() if value is not None}
    return fields if isinstance(fields.get("id"), str) and fields.get("status") in ("answered", "failed") else None


def _from_cell(value: Any, kind: ColumnType) -> Any:  # noqa: ANN401 (JSON)
    """A cell of CSV is text, of Parquet what it is."""
    if not isinstance(value, str):
        return value
    read = _FROM_TEXT.get(kind, str)
    try:
        return read(value) if value else None
    except ValueError:
        return None


def _from_openai(line: dict[str, Any]) -> dict[str, Any]:
    """A line of OpenAI's batch output, as OpenAI, vLLM and `.openai.jsonl` of ours have it.

    See https://platform.openai.com/docs/api-reference/batch/request-output.
    """
    response, error = line.get("response"), line.get("error")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code", _OK) if isinstance(response, dict) else None
    if isinstance(body, dict) and not error and status == _OK and (vectors := _vectors(body)) is not None:
        return {"id": line["custom_id"], "status": "answered", **vectors}
    texts, reasons = _texts(body) if isinstance(body, dict) and not error and status == _OK else ([], [])
    if not isinstance(body, dict) or not texts:
        found = error or (body.get("error") if isinstance(body, dict) else body) or {}
        return {"id": line["custom_id"], "status": "failed", "error": _error(found, status)}
    usage = body.get("usage") or {}
    counts = {
        "prompt_tokens": usage.get("prompt_tokens", usage.get("input_tokens")) or 0,
        "completion_tokens": usage.get("completion_tokens", usage.get("output_tokens")) or 0,
    }
    record = {
        "id": line["custom_id"],
        "status": "answered",
        "text": texts[0],
        "finish_reason": reasons[0],
        "usage": counts,
        "model": body.get("model") or "",
    }
    if len(texts) > 1:
        record |= {"texts": texts, "details": {"finish_reasons": reasons}}
    message = next((choice.get("message") for choice in body.get("choices") or () if isinstance(choice, dict)), None)
    if isinstance(message, dict):
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        found = {"reasoning": thoughts, "tool_calls": message.get("tool_calls")}
        record |= {name: value for name, value in found.items() if value}
    return record


def _vectors(body: dict[str, Any]) -> dict[str, Any] | None:
    """The fields of an answer with embeddings, classes or scores; None if the body has none."""
    results, data = body.get("results"), body.get("data")
    usage = body.get("usage") or {}
    common = {
        "usage": {"prompt_tokens": usage.get("prompt_tokens", usage.get("total_tokens")) or 0, "completion_tokens": 0},
        "model": body.get("model") or "",
    }
    if isinstance(results, list) and results:
        by_index = sorted(results, key=lambda one: one.get("index", 0))
        return {"task": "score", "scores": [one.get("relevance_score") for one in by_index], **common}
    if not isinstance(data, list) or not data or not all(isinstance(one, dict) for one in data):
        return None
    data = sorted(data, key=lambda one: one.get("index", 0))
    if "embedding" in data[0]:
        embeddings = [one.get("embedding") for one in data]
        several = {"embeddings": embeddings} if len(embeddings) > 1 else {}
        return {"task": "embed", "embedding": embeddings[0], **several, **common}
    if "probs" in data[0]:
        classes = [{name: one[name] for name in ("label", "probs") if one.get(name) is not None} for one in data]
        return {"task": "classify", **classes[0], **({"classes": classes} if len(classes) > 1 else {}), **common}
    return None


def _error(found: object, status: object) -> dict[str, Any]:
    fields = found if isinstance(found, dict) else {"message": str(found)}
    kind = fields.get("code") or fields.get("type") or (f"http_{status}" if status not in (None, _OK) else "no_answer")
    return {
        "kind": str(kind),
        "message": str(fields.get("message") or f"HTTP status {status}, without a text"),
        "retryable": False,
    }


def _texts(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The texts of a completion, a chat completion or a response, and why each ended."""
    if isinstance(body.get("output"), list):
        parts = [
            part
            for item in body["output"]
            if isinstance(item, dict)
            for part in (item.get("content") or ())
            if item.get("type") == "message"
        ]
        return [_joined(parts)], ["stop" if body.get("status") == "completed" else "length"]
    choices = [choice for choice in body.get("choices") or () if isinstance(choice, dict)]
    texts = [
        choice["text"] if isinstance(choice.get("text"), str) else _message_text(choice.get("message"))
        for choice in choices
    ]
    if any(text is None for text in texts):
        return [], []
    return [text or "" for text in texts], [str(choice.get("finish_reason") or "") for choice in choices]


def _message_text(message: object) -> str | None:
    """None if there is no message."""
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    return _joined(content) if isinstance(content, list) else str(content or message.get("refusal") or "")


def _joined(parts: list[Any]) -> str:
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in parts if isinstance(part, dict))
