"""Counts every request where it comes in, before anything is decided about it. An ASGI middleware."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wire.histogram import SECONDS, Histogram

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Instead of a path or a method that is none of ours, so that nobody's words become labels without end."""
GONE = "gone"
"""Instead of a status, where the client went away before it had one."""


@dataclass(slots=True)
class RouteTraffic:
    """Of one route. Bytes are those of bodies."""

    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class TrafficCounts:
    """Only ever added to, but for `open_requests`.

    Attributes:
        requests: By (route, method, status).
        routes: By route: its path with parameters by their names, which is one of a few.
    """

    open_requests: int = 0
    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    routes: dict[str, RouteTraffic] = field(default_factory=dict)


class Traffic:
    """Stands before the gate, so that what is refused there is counted as well."""

    def __init__(self, app: ASGIApp, counts: TrafficCounts, now: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._counts = counts
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, received, sent = GONE, 0, 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = str(message["status"])
            sent += len(message.get("body", b""))
            await send(message)

        counts, began = self._counts, self._now()
        counts.open_requests += 1
        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            counts.open_requests -= 1
            # Known only now: the router has written it there. Of the gate's refusals none is known.
            route = getattr(scope.get("route"), "path", OTHER)
            method = scope["method"] if scope["method"] in METHODS else OTHER
            counts.requests[route, method, status] += 1
            of_route = counts.routes.setdefault(route, RouteTraffic())
            of_route.seconds.observe(self._now() - began)
            of_route.received_bytes += received
            of_route.sent_bytes += sent
