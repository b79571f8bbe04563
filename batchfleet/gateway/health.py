"""`/health`: for whoever has to decide whether requests may be sent here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.replies import JsonReply


async def health(request: Request) -> Response:
    """200 if the queue answers; else 503, as everywhere."""
    await request.app.state.redis.time()
    return JsonReply({"status": "ok"})


routes: list[BaseRoute] = [Route("/health", health)]
