"""`Idempotency-Key`: a request that comes again, because its reply was lost, gets what the first one made."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from starlette.requests import Request

from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.store import now

HEADER = "Idempotency-Key"
KEPT_S = 86_400
"""How long a key is remembered. So many rows there are at most as things were made in that time."""
MOST_CHARS = 255


@dataclass(frozen=True, slots=True)
class Repeat:
    """What tells a request that comes again.

    Attributes:
        table: Of what it makes.
        key: SHA-256 of the client's key.
        asked: SHA-256 of what is asked for: it must be the same.
    """

    table: Literal["files", "batches"]
    owner: str
    key: bytes
    asked: bytes


def repeat_of(request: Request, table: Literal["files", "batches"], owner: str, asked: Any) -> Repeat | None:  # noqa: ANN401 (JSON)
    """From a request's header; None if it has none.

    Raises:
        ApiError: The key is empty or too long.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= MOST_CHARS:
        raise ApiError(400, f"{HEADER} must have 1 to {MOST_CHARS} characters.", code="invalid_idempotency_key")
    content = orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)
    return Repeat(table, owner, hashlib.sha256(key.encode()).digest(), hashlib.sha256(content).digest())


def earlier(database: sqlite3.Connection, repeat: Repeat | None) -> str | None:
    """The id of what such a request has made before and that is still there; None for nothing.

    Raises:
        ApiError: The key was of a request for something else.
    """
    if repeat is None:
        return None
    row = database.execute(
        "SELECT object_id, asked FROM repeats WHERE object = ?1 AND owner = ?2 AND key = ?3 AND created_at > ?4"  # noqa: S608
        f" AND EXISTS (SELECT 1 FROM {repeat.table} WHERE id = object_id AND owner = ?2)",
        (repeat.table, repeat.owner, repeat.key, now() - KEPT_S),
    ).fetchone()
    if row is None:
        return None
    if row["asked"] != repeat.asked:
        msg = f"This {HEADER} was used within a day for another request. Use a new key for each."
        raise ApiError(400, msg, code="idempotency_key_reused")
    return str(row["object_id"])


def remember(database: sqlite3.Connection, repeat: Repeat | None, object_id: str) -> None:
    """In the transaction that makes the object."""
    if repeat is not None:
        database.execute(
            "INSERT OR REPLACE INTO repeats VALUES (?, ?, ?, ?, ?, ?)",
            (repeat.table, repeat.owner, repeat.key, repeat.asked, object_id, now()),
        )


def forget_old(database: sqlite3.Connection) -> None:
    """Those whose day is over."""
    database.execute("DELETE FROM repeats WHERE created_at <= ?", (now() - KEPT_S,))
