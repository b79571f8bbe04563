"""Between a client and a real server: passes requests on, or fails them as servers and networks do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

FORWARD = "forward"
CUT = "cut"
"""The request reaches the server; the connection ends before its answer."""
HOLD = "hold"
"""The request reaches nobody, and nothing comes back."""

Fate = int | str
"""What becomes of one request: an HTTP status in place of an answer, or one of the words above."""

_BLOCK_BYTES = 65_536


class FaultyProxy:
    """One request on each connection.

    `decide` is asked for the fate of each POST, told its body; all else is passed on.

    Attributes:
        port: Where it listens, on the loopback, inside its `with` block.
        asked: POST requests so far.
    """

    def __init__(self, server_port: int, decide: Callable[[bytes], Fate]) -> None:
        self._server_port = server_port
        self.decide = decide
        self.asked = 0
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and drop every connection: the server is gone."""
        self._server.close()
        for writer in self._connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head, body = await _read_request(reader)
            fate: Fate = FORWARD
            if head.startswith(b"POST"):
                self.asked += 1
                fate = self.decide(body)
            if fate == HOLD:
                await reader.read()
            elif isinstance(fate, int):
                told = b'{"error": {"message": "made by a test", "code": %d}}' % fate
                writer.write(b"HTTP/1.1 %d Whatever\r\nconnection: close\r\ncontent-type: application/json\r\n" % fate)
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(told), told))
                await writer.drain()
            else:
                await self._pass_on(head + body, None if fate == CUT else writer)
        self._connections.discard(writer)
        writer.close()

    async def _pass_on(self, request: bytes, answer_to: asyncio.StreamWriter | None) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            writer.write(request)
            while data := await reader.read(_BLOCK_BYTES):
                if answer_to is None:
                    return
                answer_to.write(data)
                await answer_to.drain()
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the first request; the head now asks the server to close the connection after it.

    That tells us where its answer ends.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    first, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [field for field in fields if not field.lower().startswith(b"connection:")]
    length = next(
        (int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length:")), 0
    )
    return b"\r\n".join([first, *kept, b"connection: close", b"", b""]), await reader.readexactly(length)
