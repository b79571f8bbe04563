"""`/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`: questions whose clients wait for the answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.fleet_questions import FleetQuestions
from batchfleet.gateway.models import Models
from batchfleet.gateway.online_reply import as_answer, completion, events
from batchfleet.gateway.online_request import CONTENT, parse_request
from batchfleet.gateway.options import GatewayOptions
from batchfleet.gateway.replies import JsonReply

T = TypeVar("T")

GONE = Response(status_code=499)
"""For nobody: the client has left. The status is nginx's."""


async def answer(request: Request) -> Response:
    """One online request, from its body to its answer."""
    state = request.app.state
    options: GatewayOptions = state.options
    models: Models = state.models
    fleet: FleetQuestions = state.fleet_questions
    try:
        raw = await request.body()
    except ClientDisconnect:
        return GONE
    asked = parse_request(
        raw,
        request.url.path,
        deadline_s=options.limits.answer_timeout_s,
        max_question_bytes=options.settings.limits.max_question_bytes,
    )
    model = await models.find(asked.model)
    results = await unless_gone(request, fleet.ask(asked.questions, model))
    if results is None:
        return GONE
    answers = [as_answer(result) for result in results]
    body = completion(request.state.request_id, int(time.time()), asked, answers)
    if not asked.stream:
        return JsonReply(body)
    # All there is to say is known by now, so it goes out at once, and errors have had their status.
    return Response(b"".join(events(body, include_usage=asked.include_usage)), media_type="text/event-stream")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of some work; None if the client left before it was there. Then the work was cancelled."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError, ApiError):
                await working


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Puts the way into the queue at `app.state.fleet_questions`."""
    app.state.fleet_questions = questions = FleetQuestions(app.state.options)
    try:
        yield
    finally:
        await questions.close()


routes: list[BaseRoute] = [Route(path, answer, methods=["POST"]) for path in CONTENT]
