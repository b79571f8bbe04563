"""What every request passes: who asks, how many ask, and how much comes in and goes out at what pace.

An ASGI middleware without anything of the rooms behind it. What it refuses, it refuses in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batchfleet.gateway.api_keys import KeyRing, no_key
from batchfleet.gateway.errors import ApiError, too_many
from batchfleet.gateway.limits import GatewayLimits

LEAST_BYTES_S = 1024
"""A body that comes more slowly than this, in bytes a second, is not waited for."""
BUSY_S = 1.0
"""When to come again where there are too many requests: they end all the time."""
UPLOADS = ("/v1/files", "/v1/uploads")
"""Their bodies go to disk as they come."""
FORM_BYTES = 64 * 1024
"""What a form has around a file."""
WITH_KEY = "/v1/"
"""Where a key is needed, if there are keys. Elsewhere what is private asks for it: `keys.owner_of`."""


class Gate:
    """Stands before an app.

    Attributes:
        open_requests: How many are being answered.
        held_bytes: Of their bodies that are in memory.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, limits: GatewayLimits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self.open_requests = 0
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_id(scope, send)
        body = _Body(self, self._limits, scope, receive)
        try:
            scope["state"]["owner"] = self._owner(scope)
            most = self._limits.max_open_requests
            # What looks at the gateway itself must not be the first to suffer when it is full.
            if self.open_requests >= most and scope["path"].startswith(WITH_KEY):
                raise too_many(
                    f"This gateway is answering {most} requests already, the most it takes. Try again soon.", BUSY_S
                )
            body.check_announced()
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        self.open_requests += 1
        try:
            await self._app(scope, body.receive, send)
        finally:
            self.open_requests -= 1
            self.held_bytes -= body.held_bytes

    def _owner(self, scope: Scope) -> str | None:
        """The owner for `request.state`: '' without keys, None for nobody where nobody needs to be anyone."""
        headers = Headers(scope=scope)
        if not self._keys.entries:
            check_local(headers)
            return ""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = scheme.lower() == "bearer" and bool(key)
        owner = self._keys.owner_of(key.strip()) if given else None
        if owner is None and (given or scope["path"].startswith(WITH_KEY)):
            raise no_key(given=given)
        return owner


def _with_id(scope: Scope, send: Send) -> Send:
    """Gives a request an id, `request.state.request_id`, which OpenAI's SDK shows people from the header."""
    request_id = f"req_{secrets.token_hex(12)}"
    scope.setdefault("state", {})["request_id"] = request_id
    header = (b"x-request-id", request_id.encode())

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), header]
        await send(message)

    return send_with_id


class _Body:
    """The body of one request: bounded in size, in what it holds together with others, and in the time it takes."""

    def __init__(self, gate: Gate, limits: GatewayLimits, scope: Scope, receive: Receive) -> None:
        self._gate = gate
        self._limits = limits
        self._headers = Headers(scope=scope)
        self._receive = receive
        self._is_upload = scope["path"].startswith(UPLOADS)
        self._most = limits.max_file_bytes + FORM_BYTES if self._is_upload else limits.max_body_bytes
        self._came = 0
        self._is_whole = False
        self._began = asyncio.get_running_loop().time()
        self.held_bytes = 0

    def check_announced(self) -> None:
        """Refuse what says itself that it is too large, before it comes."""
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        until = self._began + self._limits.body_timeout_s + self._came / LEAST_BYTES_S
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            msg = "The body of the request did not come in time."
            raise ApiError(408, msg, code="request_timeout", headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._is_whole = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self._came += size
        if self._came > self._most:
            raise self._too_large()
        if self._is_upload:
            return
        if self._gate.held_bytes + size > self._limits.max_bodies_bytes:
            raise too_many(
                "The requests that this gateway is answering take all the memory it has for them. Try again soon.",
                BUSY_S,
            )
        self.held_bytes += size
        self._gate.held_bytes += size

    def _too_large(self) -> ApiError:
        kind = "file" if self._is_upload else "body"
        msg = f"The {kind} is too large: at most {self._most} bytes are taken."
        return ApiError(413, msg, code=f"{kind}_too_large", headers={"Connection": "close"})


def check_local(headers: Mapping[str, str]) -> None:
    """Without keys, only programs of this machine may ask, and no web page that a browser on it shows.

    A page can make a browser send requests here: across origins, or under a name of its own that it has pointed at
    127.0.0.1.

    Raises:
        ApiError: It comes from such a page.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if foreign or headers.get("sec-fetch-site", "none") == "cross-site" or not is_loopback(_name_in(host)):
        msg = "Without keys this gateway answers only programs on its own machine that ask for localhost or 127.0.0.1."
        raise ApiError(403, msg, code="foreign_origin")


def _name_in(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether that name or address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
