"""Pages of a list, with a cursor: `limit`, `after`, `order`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.store import Store


@dataclass(frozen=True, slots=True)
class Listing:
    """Which page.

    Attributes:
        limit: Most entries of it.
        after: The id of the entry before it; None for the first page.
    """

    limit: int
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"


def listing_of(query: Mapping[str, str], default: int, most: int) -> Listing:
    """Read what the URL asks for.

    Raises:
        ApiError: It is no number, out of bounds, or another order.
    """
    text, order = query.get("limit", str(default)), query.get("order", "desc")
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= most:
        msg = f"Invalid 'limit': expected an integer from 1 to {most}."
        raise ApiError(400, msg, param="limit", code="invalid_value")
    if order not in {"asc", "desc"}:
        msg = "Invalid 'order': expected 'asc' or 'desc'."
        raise ApiError(400, msg, param="order", code="invalid_value")
    return Listing(int(text[:9]), query.get("after") or None, "asc" if order == "asc" else "desc")


def page_of(
    store: Store,
    table: Literal["files", "batches"],
    owner: str,
    listing: Listing,
    as_object: Callable[[sqlite3.Row], dict[str, Any]],
    where: str = "1",
    values: Sequence[str | int] = (),
) -> dict[str, Any]:
    """One page of an owner's entries, as OpenAI's API shows a list.

    Raises:
        ApiError: The cursor is no entry of this owner.
    """
    bound = ""
    if listing.after is not None:
        cursor = store.row(f"SELECT seq FROM {table} WHERE id = ? AND owner = ?", listing.after, owner)  # noqa: S608
        if cursor is None:
            msg = f"Invalid 'after': there is no such {'file' if table == 'files' else 'batch'}."
            raise ApiError(400, msg, param="after", code="invalid_value")
        bound = f" AND seq {'>' if listing.order == 'asc' else '<'} {int(cursor['seq'])}"
    query = f"SELECT * FROM {table} WHERE owner = ? AND {where}{bound} ORDER BY seq {listing.order} LIMIT ?"  # noqa: S608
    found = [as_object(row) for row in store.rows(query, owner, *values, listing.limit + 1)]
    data = found[: listing.limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > listing.limit,
    }
