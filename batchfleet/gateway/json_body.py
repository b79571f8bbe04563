"""The small JSON objects that files, uploads and batches are asked with, and what may stand in them."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request

from batchfleet.gateway.errors import ApiError

MOST_BYTES = 1024 * 1024
MOST_PAIRS, MOST_KEY_CHARS, MOST_VALUE_CHARS = 16, 64, 512
"""OpenAI's bounds of `metadata`."""
MOST_NAMES_SHOWN = 5


async def read_object(request: Request, known: frozenset[str]) -> dict[str, Any]:
    """Read a request's body; what is null counts as not given.

    Raises:
        ApiError: It is no JSON object, too large, or has a field that we do not know.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise ApiError(413, f"The body is too large: at most {MOST_BYTES} bytes are taken.", code="body_too_large")
    try:
        found = orjson.loads(bytes(body) or b"{}")
    except orjson.JSONDecodeError as error:
        msg = f"The body is not JSON: {str(error)[:200]}"
        raise ApiError(400, msg, code="invalid_json") from None
    if not isinstance(found, dict):
        msg = "The body must be a JSON object."
        raise ApiError(400, msg, code="invalid_json")
    if unknown := [name for name in found if name not in known]:
        names = ", ".join(repr(name[:60]) for name in unknown[:MOST_NAMES_SHOWN])
        raise ApiError(400, f"Unrecognized request argument: {names}", param=unknown[0][:60], code="unknown_parameter")
    return {name: value for name, value in found.items() if value is not None}


def text(body: dict[str, Any], name: str, *, most: int = 255) -> str:
    """A text that must be there."""
    value = body.get(name)
    if value is None:
        raise ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if not isinstance(value, str) or not value or len(value) > most:
        msg = f"Invalid '{name}': expected a text of 1 to {most} characters."
        raise ApiError(400, msg, param=name, code="invalid_value")
    return value


def metadata(body: dict[str, Any]) -> dict[str, str] | None:
    """OpenAI's: up to 16 pairs of short texts."""
    value = body.get("metadata")
    if value is None:
        return None
    fits = isinstance(value, dict) and len(value) <= MOST_PAIRS
    if not fits or not all(
        len(key) <= MOST_KEY_CHARS and isinstance(item, str) and len(item) <= MOST_VALUE_CHARS
        for key, item in value.items()
    ):
        msg = (
            f"Invalid 'metadata': expected up to {MOST_PAIRS} pairs of texts, keys of up to {MOST_KEY_CHARS} and "
            f"values of up to {MOST_VALUE_CHARS} characters."
        )
        raise ApiError(400, msg, param="metadata", code="invalid_value")
    return dict(value)
