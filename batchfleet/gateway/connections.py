"""Connections to clients that may be slow, silent, gone or malicious: each has its times, and all have a bound.

Uvicorn bounds neither the time before a first request, nor the size of headers, nor the time that a response waits in
front of a client that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, cast

import orjson
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from batchfleet.gateway.limits import GatewayLimits

MOST_HEADER_BYTES = 64 * 1024
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds, seconds, probes: a client whose machine is off is noticed after two minutes."""


class Connections:
    """Those of one gateway. `waiting`: the ones without a request, those that have waited longest first."""

    def __init__(self, limits: GatewayLimits) -> None:
        self.limits = limits
        self.count = 0
        self.waiting: dict[Connection, None] = {}

    def protocol(self) -> type[HttpToolsProtocol]:
        """What uvicorn makes for each connection."""
        connections = self

        class Bounded(Connection):
            group = connections

        return Bounded

    def make_room(self) -> None:
        """Close the connection that has been idle longest if there are too many."""
        if self.count > self.limits.max_connections and self.waiting:
            next(iter(self.waiting)).transport.abort()


class Connection(HttpToolsProtocol):
    """One connection."""

    group: Connections

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (uvicorn's)
        super().__init__(*args, **kwargs)
        self._silence: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        keep_alive(transport)
        self.group.count += 1
        self.group.make_room()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.group.count -= 1
        self._stop_waiting()
        self._stop_clock()
        self._tell_it_is_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self in self.group.waiting:
            # Whatever comes, the head must be there in time: a byte now and then is no sign of life.
            self._head_bytes += len(data)
        super().data_received(data)
        if self in self.group.waiting and self._head_bytes > MOST_HEADER_BYTES:
            self._refuse(431, f"The headers of the request are longer than {MOST_HEADER_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_clock()
        elif self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self._wait_for_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_clock()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_clock()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        body = orjson.dumps(
            {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        )
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()
        self._start_clock()

    def _wait_for_request(self) -> None:
        self._head_bytes = 0
        self.group.waiting[self] = None
        self._silence = self.loop.call_later(self.group.limits.idle_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        self.group.waiting.pop(self, None)
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _give_up(self) -> None:
        if self._head_bytes:
            self._refuse(408, "The head of the request did not come in time.")
        else:
            self.transport.close()
            self._start_clock()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_it_is_gone(self) -> None:
        """Uvicorn tells only the request that came last, and others of this connection may wait before that."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_clock(self) -> None:
        """Something is to be taken by the client, and it has so long for it."""
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.group.limits.body_timeout_s, self._hang_up)

    def _hang_up(self) -> None:
        # First, as writing to what is closed is an error.
        self._tell_it_is_gone()
        self.transport.abort()

    def _stop_clock(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel ask now and then whether the other end is still there."""
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
