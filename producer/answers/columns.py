"""An answer line -> the columns of a table: one value each, JSON text where a value is more than one."""

from __future__ import annotations

from typing import Any, Literal

import orjson

ColumnType = Literal["text", "integer", "number", "boolean", "json"]

COLUMNS: dict[str, ColumnType] = {
    "id": "text",
    "status": "text",
    "text": "text",
    "texts": "json",
    "finish_reason": "text",
    "prompt_tokens": "integer",
    "completion_tokens": "integer",
    "cached_tokens": "integer",
    "reasoning_tokens": "integer",
    "model": "text",
    "params": "json",
    "details": "json",
    "error_kind": "text",
    "error_message": "text",
    "error_retryable": "boolean",
    "error_evidence": "json",
    "worker": "text",
    "attempts": "integer",
    "latency_s": "number",
    "metadata": "json",
}
"""In the order of the table. A column without a value is empty, or null."""

_INSIDE = ("usage", "error")


def row_of(fields: dict[str, Any]) -> dict[str, Any]:
    """The row of one line: `usage` and `error` opened, `json` columns as text, None where there is nothing."""
    flat = {name: value for name, value in fields.items() if name not in _INSIDE}
    flat |= fields.get("usage") or {}
    flat |= {f"error_{name}": value for name, value in (fields.get("error") or {}).items()}
    return {name: _as_text(flat.get(name)) if kind == "json" else flat.get(name) for name, kind in COLUMNS.items()}


def _as_text(value: Any) -> str | None:  # noqa: ANN401 (JSON)
    return None if value is None else orjson.dumps(value).decode()
