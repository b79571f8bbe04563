"""The vectors of an answer, as its line has them, and back."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping
from typing import Any, Protocol

from wire.messages import JsonObject, Task


class WithVectors(Protocol):
    """An answer that may have vectors, as it travels or as a program gets it."""

    @property
    def task(self) -> Task: ...
    @property
    def vectors(self) -> list[bytes] | None: ...
    @property
    def params(self) -> JsonObject: ...
    @property
    def details(self) -> JsonObject | None: ...


def vector_fields(answer: WithVectors) -> dict[str, Any]:
    """What replaces the text: `embedding`, `scores`, or `label` and `probs`."""
    vectors = answer.vectors or []
    if answer.task == "score":
        return {"scores": numbers(vectors[0])} if vectors else {}
    if answer.task == "classify":
        labels = (answer.details or {}).get("labels")
        named = labels if isinstance(labels, list) and len(labels) == len(vectors) else [None] * len(vectors)
        classes = [
            {**({} if label is None else {"label": label}), "probs": numbers(vector)}
            for label, vector in zip(named, vectors, strict=True)
        ]
        return {**(classes[0] if classes else {}), **({"classes": classes} if len(classes) > 1 else {})}
    write = _base64 if answer.params.get("encoding_format") == "base64" else numbers
    embeddings = [write(vector) for vector in vectors]
    return {"embedding": next(iter(embeddings), None), **({"embeddings": embeddings} if len(embeddings) > 1 else {})}


def numbers(vector: bytes) -> list[float]:
    """A vector as it travels -> its numbers."""
    found = array("f", vector)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def as_numbers(written: Any) -> list[float]:  # noqa: ANN401 (JSON)
    """A vector as a line has it, base64 or not, -> its numbers."""
    return numbers(base64.b64decode(written)) if isinstance(written, str) else written


def data_of(fields: Mapping[str, Any]) -> list[Any]:
    """All embeddings of an answer line, as they are written there."""
    return fields.get("embeddings") or [fields["embedding"]]


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
