"""An answer line -> the columns of a table: one value each, JSON text where a value is more than one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from producer.answers.vector_answers import as_numbers

ColumnType = Literal["text", "integer", "number", "boolean", "json", "vector"]

COLUMNS: dict[str, ColumnType] = {
    "id": "text",
    "status": "text",
    "text": "text",
    "texts": "json",
    "reasoning": "text",
    "tool_calls": "json",
    "task": "text",
    "embedding": "vector",
    "embeddings": "json",
    "label": "text",
    "probs": "vector",
    "classes": "json",
    "scores": "vector",
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
    "shared": "json",
    "metadata": "json",
    "asked": "text",
    "removed": "boolean",
}
"""In the order of the table. A column without a value is empty, or null."""

OF_VECTORS = frozenset({"task", "embedding", "embeddings", "label", "probs", "classes", "scores"})
"""Columns that a table has only if an answer has something for them."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Which columns a table has.

    Attributes:
        of_vectors: Those of `OF_VECTORS`.
        sizes: How many numbers each vector of a column has; a column that is missing has vectors of several sizes.
    """

    of_vectors: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, ColumnType]:
        return {name: kind for name, kind in COLUMNS.items() if name not in OF_VECTORS or name in self.of_vectors}

    def with_rows(self, rows: Iterable[Mapping[str, Any]]) -> TableLayout:
        """With what these need too. `rows`: from `row_of`."""
        of_vectors, sizes, seen = set(self.of_vectors), dict(self.sizes), set(self.of_vectors)
        for row in rows:
            for name in OF_VECTORS:
                value = row.get(name)
                if value is None:
                    continue
                of_vectors.add(name)
                if COLUMNS[name] != "vector":
                    continue
                if name not in seen:
                    sizes[name] = len(value)
                elif sizes.get(name) != len(value):
                    sizes.pop(name, None)
                seen.add(name)
        return (
            self if of_vectors == self.of_vectors and sizes == self.sizes else TableLayout(frozenset(of_vectors), sizes)
        )


_INSIDE = ("usage", "error")


def row_of(fields: dict[str, Any]) -> dict[str, Any]:
    """The row of one line: `usage` and `error` opened, `json` columns as text, None where there is nothing."""
    flat = {name: value for name, value in fields.items() if name not in _INSIDE}
    flat |= fields.get("usage") or {}
    flat |= {f"error_{name}": value for name, value in (fields.get("error") or {}).items()}
    return {name: _in_cell(flat.get(name), kind) for name, kind in COLUMNS.items()}


def _in_cell(value: Any, kind: ColumnType) -> Any:  # noqa: ANN401 (JSON)
    if value is None or kind not in {"json", "vector"}:
        return value
    return as_numbers(value) if kind == "vector" else orjson.dumps(value).decode()
