"""Answer lines as rows: the answers of one run are the questions of the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.questions.json_object import UnusableError

PREVIOUS = "previous"
_KEPT = ("status", "text", "texts", "finish_reason", "model", "error")


def is_answer_line(row: Mapping[str, Any]) -> bool:
    """Whether a row is a line of an answers file."""
    return row.get("status") in ("answered", "failed") and isinstance(row.get("id"), str) and "attempts" in row


def fields_of(row: Mapping[str, Any], prompt: str | None) -> dict[str, Any]:
    """The fields of a question: its id and metadata go on, and what was answered is `previous` in them.

    The model and the parameters are those of the run, not those that gave the answer.

    Args:
        prompt: What the template has made of it.

    Raises:
        UnusableError: There is no template.
    """
    if prompt is None:
        raise UnusableError(
            "it is an answer line; --template makes a question of it, such as 'Is this right? {{ text }}'"
        )
    metadata = row.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    previous = {name: row[name] for name in _KEPT if row.get(name) is not None}
    if PREVIOUS in metadata:
        previous[PREVIOUS] = metadata[PREVIOUS]
    return {"id": row["id"], "question": prompt, "metadata": {**metadata, PREVIOUS: previous}}
