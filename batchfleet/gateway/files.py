"""`/v1/files`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.api_keys import owner_of
from batchfleet.gateway.batch_lines import finished_lines
from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.form_to_disk import received
from batchfleet.gateway.list_page import listing_of
from batchfleet.gateway.repeats import repeat_of
from batchfleet.gateway.replies import JsonReply
from batchfleet.gateway.store import Store, new_id

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
"""OpenAI's. Here, batches read those for `batch`; others are kept and given back."""
SHORTEST_S, LONGEST_S = 3600, 30 * 86_400
"""OpenAI's bounds of `expires_after`."""
MOST_LISTED = 10_000
CONTENT_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
"""What people upload is never shown as a page of this gateway's."""


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """While the app runs, `app.state` has its `store` and `files`."""
    app.state.store = await run_in_threadpool(Store, app.state.data_folder)
    app.state.files = FileTable(app.state.store)
    try:
        yield
    finally:
        app.state.store.close()


async def create(request: Request) -> Response:
    files, limits, owner = request.app.state.files, request.app.state.options.limits, owner_of(request)
    await check_room(request, owner)
    part = request.app.state.store.content(new_id("part-"))
    async with received(request, "file", part, limits.max_file_bytes) as form:
        purpose = checked_purpose(form.fields.get("purpose"))
        after_s = expiry_in_form(form.fields)
        asked = [form.filename, purpose, after_s, part.stat().st_size]
        repeat = repeat_of(request, "files", owner, asked)
        made = await run_in_threadpool(
            files.add, owner, form.filename, purpose, part, expires_after_s=after_s, repeat=repeat
        )
    return JsonReply(made)


async def index(request: Request) -> Response:
    owner, listing = owner_of(request), listing_of(request.query_params, MOST_LISTED, MOST_LISTED)
    purpose = request.query_params.get("purpose")
    return JsonReply(await run_in_threadpool(request.app.state.files.list, owner, listing, purpose))


async def retrieve(request: Request) -> Response:
    file_id = request.path_params["file_id"]
    found = await run_in_threadpool(request.app.state.files.get, owner_of(request), file_id)
    if found is None:
        raise no_file(file_id)
    return JsonReply(found)


async def delete(request: Request) -> Response:
    file_id = request.path_params["file_id"]
    outcome = await run_in_threadpool(request.app.state.files.delete, owner_of(request), file_id)
    if outcome == "missing":
        raise no_file(file_id)
    if outcome == "in use":
        msg = "A batch that is not finished needs this file. Wait for it or cancel it, then delete the file."
        raise ApiError(400, msg, param="file_id", code="file_in_use")
    return JsonReply({"id": file_id, "object": "file", "deleted": True})


async def content(request: Request) -> Response:
    """The bytes; of a batch that runs, what is finished by now."""
    store, file_id = request.app.state.store, request.path_params["file_id"]
    row = await run_in_threadpool(request.app.state.files.row, owner_of(request), file_id)
    if row is None:
        raise no_file(file_id)
    path = store.content(row["id"])
    if row["batch_id"] is not None and not path.exists():
        lines = await run_in_threadpool(_running_output, store, row["batch_id"])
        return StreamingResponse(lines, headers=CONTENT_HEADERS, media_type="application/octet-stream")
    return FileResponse(path, headers=CONTENT_HEADERS, media_type="application/octet-stream")


def _running_output(store: Store, batch_id: str) -> Iterator[bytes]:
    batch = store.row("SELECT * FROM batches WHERE id = ?", batch_id)
    if batch is None:
        return iter(())
    return finished_lines(store.journal(batch_id), batch["endpoint"], batch["in_progress_at"] or 0)


async def check_room(request: Request, owner: str) -> None:
    """Refuse more files than a key may have, before the bytes of one more come."""
    most = request.app.state.options.limits.max_files
    if await run_in_threadpool(request.app.state.files.count, owner) >= most:
        msg = f"You have {most} files, the most that this gateway keeps for one key. Delete some first."
        raise ApiError(400, msg, code="too_many_files")


def checked_purpose(purpose: object) -> str:
    """One of `PURPOSES`.

    Raises:
        ApiError: It is missing, or another.
    """
    if purpose is None:
        msg = "Missing required parameter: 'purpose'."
        raise ApiError(400, msg, param="purpose", code="missing_required_parameter")
    if purpose not in PURPOSES:
        msg = f"Invalid value for 'purpose': expected one of {', '.join(PURPOSES)}."
        raise ApiError(400, msg, param="purpose", code="invalid_value")
    return str(purpose)


def expiry_in_form(fields: Mapping[str, str]) -> int | None:
    """`expires_after[anchor]` and `expires_after[seconds]`."""
    given = {
        name: fields[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in fields
    }
    if "seconds" in given and given["seconds"].isascii() and given["seconds"].isdecimal():
        return checked_expiry({**given, "seconds": int(given["seconds"][:12])})
    return checked_expiry(given or None)


def checked_expiry(value: object, param: str = "expires_after") -> int | None:
    """`{"anchor": "created_at", "seconds": N}` -> N; None for none.

    Raises:
        ApiError: It is something else, or out of OpenAI's bounds.
    """
    if value is None:
        return None
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    seconds = given.get("seconds")
    if given.get("anchor") != "created_at" or type(seconds) is not int or not SHORTEST_S <= seconds <= LONGEST_S:
        msg = f"Invalid '{param}': expected anchor 'created_at', and seconds from {SHORTEST_S} to {LONGEST_S}."
        raise ApiError(400, msg, param=param, code="invalid_value")
    return seconds


def no_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id[:100]}", param="id", code="not_found")


routes: list[BaseRoute] = [
    Route("/v1/files", create, methods=["POST"]),
    Route("/v1/files", index, methods=["GET"]),
    Route("/v1/files/{file_id}", retrieve, methods=["GET"]),
    Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
    Route("/v1/files/{file_id}/content", content, methods=["GET"]),
]
