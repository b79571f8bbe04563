"""`/v1/uploads`: a file in parts, each of which can be sent again by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.api_keys import owner_of
from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.files import check_room, checked_expiry, checked_purpose
from batchfleet.gateway.form_to_disk import disk_error, plain_name, received
from batchfleet.gateway.json_body import read_object, text
from batchfleet.gateway.replies import JsonReply
from batchfleet.gateway.store import new_id
from batchfleet.gateway.upload_table import PartsError, UploadTable

PART_BYTES = 64 * 1024 * 1024
"""OpenAI's bound of one part."""
MOST_PARTS = 10_000
MOST_OPEN = 100
"""Uploads of one key that are not finished."""
_CREATE = frozenset({"bytes", "expires_after", "filename", "mime_type", "purpose"})
_COMPLETE = frozenset({"md5", "part_ids"})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """While the app runs, `app.state` has its `uploads`. After `files`, whose tables they need."""
    app.state.uploads = UploadTable(app.state.store, app.state.files)
    yield


async def create(request: Request) -> Response:
    owner, uploads, limits = owner_of(request), request.app.state.uploads, request.app.state.options.limits
    body = await read_object(request, _CREATE)
    size = body.get("bytes")
    if type(size) is not int or not 0 < size <= limits.max_file_bytes:
        msg = f"Invalid 'bytes': expected an integer from 1 to {limits.max_file_bytes}."
        raise ApiError(400, msg, param="bytes", code="invalid_value")
    name, purpose = plain_name(text(body, "filename", most=4096)), checked_purpose(body.get("purpose"))
    after_s = checked_expiry(body.get("expires_after"))
    await check_room(request, owner)
    if await run_in_threadpool(uploads.open_count, owner) >= MOST_OPEN:
        msg = f"You have {MOST_OPEN} uploads that are not finished, the most for one key. Complete or cancel some."
        raise ApiError(400, msg, code="too_many_uploads")
    return JsonReply(await run_in_threadpool(uploads.add, owner, name, purpose, size, expires_after_s=after_s))


async def add_part(request: Request) -> Response:
    owner, uploads = owner_of(request), request.app.state.uploads
    upload = await run_in_threadpool(uploads.row, owner, request.path_params["upload_id"])
    if upload is None:
        raise _no_upload(request)
    number, there = await run_in_threadpool(uploads.parts_of, upload["id"])
    # Twice: a part may be sent again whose reply was lost.
    most = min(PART_BYTES, 2 * upload["bytes"] - there)
    if number >= MOST_PARTS or most <= 0:
        msg = f"This upload has parts enough: {number} of them, with {there} bytes. Complete it or cancel it."
        raise ApiError(400, msg, code="too_many_parts")
    path = request.app.state.store.content(new_id("part-"))
    async with received(request, "data", path, most):
        made = await run_in_threadpool(uploads.add_part, upload["id"], path)
    if made is None:
        raise await _not_open(request)
    return JsonReply(made)


async def complete(request: Request) -> Response:
    owner, uploads = owner_of(request), request.app.state.uploads
    body = await read_object(request, _COMPLETE)
    part_ids = body.get("part_ids")
    if not isinstance(part_ids, list) or not part_ids or not all(isinstance(part_id, str) for part_id in part_ids):
        msg = "Invalid 'part_ids': expected a list of the ids of this upload's parts, in order."
        raise ApiError(400, msg, param="part_ids", code="invalid_value")
    upload = await run_in_threadpool(uploads.row, owner, request.path_params["upload_id"])
    if upload is None:
        raise _no_upload(request)
    shown = await run_in_threadpool(uploads.as_object, owner, upload["id"])
    if shown["status"] == "completed":
        # The reply to the first call was lost, and the client asks again.
        return JsonReply(shown)
    if shown["status"] != "pending":
        raise await _not_open(request)
    await check_room(request, owner)
    try:
        await run_in_threadpool(uploads.complete, upload, part_ids)
    except PartsError as error:
        raise ApiError(
            400, f"This upload cannot be completed: {error}.", param="part_ids", code="invalid_value"
        ) from None
    except OSError as error:
        raise disk_error(error) from error
    return JsonReply(await run_in_threadpool(uploads.as_object, owner, upload["id"]))


async def cancel(request: Request) -> Response:
    owner, uploads, upload_id = owner_of(request), request.app.state.uploads, request.path_params["upload_id"]
    if await run_in_threadpool(uploads.row, owner, upload_id) is None:
        raise _no_upload(request)
    if not await run_in_threadpool(uploads.cancel, upload_id):
        raise await _not_open(request)
    return JsonReply(await run_in_threadpool(uploads.as_object, owner, upload_id))


async def _not_open(request: Request) -> ApiError:
    uploads, upload_id = request.app.state.uploads, request.path_params["upload_id"]
    shown = await run_in_threadpool(uploads.as_object, owner_of(request), upload_id)
    msg = f"This upload is {shown['status']}; begin another."
    return ApiError(400, msg, param="upload_id", code="upload_not_pending")


def _no_upload(request: Request) -> ApiError:
    msg = f"No such Upload object: {request.path_params['upload_id'][:100]}"
    return ApiError(404, msg, param="id", code="not_found")


routes: list[BaseRoute] = [
    Route("/v1/uploads", create, methods=["POST"]),
    Route("/v1/uploads/{upload_id}/parts", add_part, methods=["POST"]),
    Route("/v1/uploads/{upload_id}/complete", complete, methods=["POST"]),
    Route("/v1/uploads/{upload_id}/cancel", cancel, methods=["POST"]),
]
