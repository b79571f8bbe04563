"""`/v1/batches`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.api_keys import owner_of
from batchfleet.gateway.batch_file import ENDPOINTS
from batchfleet.gateway.batch_supervisor import supervised_batches
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.errors import ApiError, too_many
from batchfleet.gateway.files import checked_expiry
from batchfleet.gateway.json_body import metadata, read_object, text
from batchfleet.gateway.list_page import listing_of
from batchfleet.gateway.repeats import repeat_of
from batchfleet.gateway.replies import JsonReply

DEFAULT_LISTED, MOST_LISTED = 20, 100
MOST_OPEN = 1000
"""Batches of one key without an end."""
LONGEST_WINDOW_S = 30 * 86_400
RETRY_S = 60.0
_CREATE = frozenset({"completion_window", "endpoint", "input_file_id", "metadata", "output_expires_after"})
_WINDOW = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """While the app runs, `app.state` has its `batches`, and a process runs them. After `files`."""
    app.state.batches = BatchTable(app.state.store, app.state.files)
    async with supervised_batches(app.state.options):
        yield


async def create(request: Request) -> Response:
    owner, batches = owner_of(request), request.app.state.batches
    body = await read_object(request, _CREATE)
    input_id, endpoint = text(body, "input_file_id"), text(body, "endpoint")
    if endpoint not in ENDPOINTS:
        msg = f"Invalid 'endpoint': {endpoint[:100]!r}; batches of this fleet are for {', '.join(ENDPOINTS)}."
        raise ApiError(400, msg, param="endpoint", code="invalid_value")
    window = text(body, "completion_window"), _seconds(body["completion_window"])
    described, after_s = metadata(body), checked_expiry(body.get("output_expires_after"), "output_expires_after")
    await _check_input(request, owner, input_id)
    if await run_in_threadpool(batches.open_count, owner) >= MOST_OPEN:
        raise too_many(
            f"You have {MOST_OPEN} batches that are not finished, the most for one key. Wait for some, or cancel them.",
            RETRY_S,
            code="batch_limit_exceeded",
        )
    repeat = repeat_of(request, "batches", owner, body)
    made = await run_in_threadpool(batches.add, owner, input_id, endpoint, window, described, after_s, repeat=repeat)
    if made is None:
        raise _no_input(input_id)
    return JsonReply(made)


async def index(request: Request) -> Response:
    listing = listing_of(request.query_params, DEFAULT_LISTED, MOST_LISTED)
    return JsonReply(await run_in_threadpool(request.app.state.batches.list, owner_of(request), listing))


async def retrieve(request: Request) -> Response:
    return JsonReply(await _found(request))


async def cancel(request: Request) -> Response:
    found = await _found(request)
    if not await run_in_threadpool(request.app.state.batches.cancel, owner_of(request), found["id"]):
        msg = f"Cannot cancel a batch with status '{found['status']}'."
        raise ApiError(409, msg, code="invalid_batch_status", headers={"x-should-retry": "false"})
    return JsonReply(await _found(request))


async def _found(request: Request) -> dict[str, object]:
    batch_id = request.path_params["batch_id"]
    found: dict[str, object] | None = await run_in_threadpool(
        request.app.state.batches.get, owner_of(request), batch_id
    )
    if found is None:
        raise ApiError(404, f"No such Batch object: {batch_id[:100]}", param="batch_id", code="not_found")
    return found


async def _check_input(request: Request, owner: str, file_id: str) -> None:
    file = await run_in_threadpool(request.app.state.files.get, owner, file_id)
    if file is None:
        raise _no_input(file_id)
    if file["purpose"] != "batch":
        msg = f"The file {file_id[:100]} has purpose '{file['purpose']}'; upload it with purpose 'batch'."
        raise ApiError(400, msg, param="input_file_id", code="invalid_file_purpose")


def _no_input(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id[:100]}", param="input_file_id", code="not_found")


def _seconds(window: str) -> int:
    """`24h`, as OpenAI has it, or any other number of seconds, minutes, hours or days."""
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_WINDOW_S:
        msg = "Invalid 'completion_window': expected '24h', or another time such as '90m' or '7d', up to 30 days."
        raise ApiError(400, msg, param="completion_window", code="invalid_value")
    return seconds


routes: list[BaseRoute] = [
    Route("/v1/batches", create, methods=["POST"]),
    Route("/v1/batches", index, methods=["GET"]),
    Route("/v1/batches/{batch_id}", retrieve, methods=["GET"]),
    Route("/v1/batches/{batch_id}/cancel", cancel, methods=["POST"]),
]
