"""Commands that go to Redis together, and what came back, of which nothing is believed.

A field that is no number reads as 0, a key of another type, or one that our user may not read, as if it were not there.
"""

from __future__ import annotations

import json
from typing import Any

import redis


class Reply:
    """What a command said, once its `Batch` is sent; None for an error."""

    def __init__(self) -> None:
        self.value: Any = None

    def number(self) -> int:
        return number(self.value)

    def text(self) -> str:
        return "" if self.value is None else text(self.value)

    def texts(self) -> list[str]:
        return [text(item) for item in self.value or ()]

    def fields(self) -> dict[str, str]:
        """Of a hash; empty if it is not there."""
        return {text(name): text(value) for name, value in (self.value or {}).items()}

    def scores(self) -> dict[str, float]:
        """Of a sorted set's members, in the order of the reply to a command `WITHSCORES`."""
        flat = iter(self.value or ())
        return {text(member): fraction(score) for member, score in zip(flat, flat, strict=True)}


class Batch:
    """One round trip."""

    def __init__(self, client: redis.Redis) -> None:
        self._pipe = client.pipeline(transaction=False)
        self._replies: list[Reply] = []

    def ask(self, *command: str | int) -> Reply:
        """Add a command; its reply has a value after `send`."""
        self._pipe.execute_command(*command)
        self._replies.append(Reply())
        return self._replies[-1]

    def send(self) -> None:
        """Raises what redis-py raises, of a command only if none of them succeeded."""
        with self._pipe:
            found = self._pipe.execute(raise_on_error=False)
        if found and all(isinstance(value, Exception) for value in found):
            raise found[0]
        for reply, value in zip(self._replies, found, strict=True):
            reply.value = None if isinstance(value, Exception) else value


def text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def number(value: object) -> int:
    return int(fraction(value))


def fraction(value: object) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]  # Whatever it is: what it cannot take, it refuses.
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if abs(found) < 1e18 else 0.0  # noqa: PLR2004 (neither infinity nor NaN is a count)


def json_object(value: object) -> dict[str, Any]:
    """Empty if it is none."""
    found = _json(value)
    return {str(name): item for name, item in found.items()} if isinstance(found, dict) else {}


def json_list(value: object) -> list[Any]:
    """Empty if it is none."""
    found = _json(value)
    return found if isinstance(found, list) else []


def _json(value: object) -> object:
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
