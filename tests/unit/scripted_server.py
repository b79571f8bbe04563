"""A real HTTP server on loopback that answers as a test tells it to.

Statuses, headers, dropped connections, silence.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

MODEL = "served"


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What to answer. `status` 0: drop the connection after the body, which is all that comes, not even a header.

    `then`: after what there is of the body, with which the answer seems not to be complete, nothing more comes
    (`stall`), or the connection is reset.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    then: Literal["end", "stall", "reset"] = "end"


def a_text(text: str = "42", **fields: Any) -> Reply:  # noqa: ANN401 (any field of a response)
    """A response that will do as a completion and as a chat completion."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "text": text,
        "message": {"role": "assistant", "content": text},
    }
    body = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    return Reply(body={**body, **fields})


def an_error(status: int, message: str = "broken", **fields: Any) -> Reply:  # noqa: ANN401
    """In OpenAI's form."""
    headers = fields.pop("headers", {})
    return Reply(status, {"error": {"message": message, **fields}}, headers)


DROPPED = Reply(0)

Script = Callable[[Asked], Reply | Awaitable[Reply]]


class ScriptedServer:
    """Answers generation requests by `script`, and says that it serves `models`.

    Remembers everything it was asked to generate.
    """

    def __init__(self, script: Script, *, models: list[dict[str, Any]] | None = None) -> None:
        self.script = script
        self.models: Reply = Reply(body={"data": models if models is not None else [{"id": MODEL}]})
        self.metrics: Script | None = None
        self.asked: list[Asked] = []
        self.at_once = 0
        self.most_at_once = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def listen(self) -> None:
        """Start; after `close`, on the same port again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Drop every connection."""
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                asked = await _read(reader)
                reply = await self._reply(asked)
                if reply.status == 0:
                    writer.write((reply.body or "").encode())
                    await writer.drain()
                    await _go_on(reader, writer, reply)
                    return
                await _write(reader, writer, reply)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _reply(self, asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return self.models
        if asked.path.endswith("/metrics"):
            return await _resolved(self.metrics(asked)) if self.metrics is not None else Reply(404)
        self.asked.append(asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await _resolved(self.script(asked))
        finally:
            self.at_once -= 1


async def _resolved(reply: Reply | Awaitable[Reply]) -> Reply:
    return reply if isinstance(reply, Reply) else await reply


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, json.loads(content) if content else None)


async def _write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> None:
    is_text = isinstance(reply.body, str)
    content = (
        reply.body if isinstance(reply.body, bytes) else (reply.body if is_text else json.dumps(reply.body)).encode()
    )
    if reply.status == 304:  # Has never a body.
        content = b""
    length = len(content) + (0 if reply.then == "end" else 100)
    headers = {
        "content-type": "text/plain" if is_text else "application/json",
        "content-length": str(length),
        **reply.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} Whatever\r\n{lines}\r\n".encode() + content)
    await writer.drain()
    await _go_on(reader, writer, reply)


async def _go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> None:
    if reply.then == "stall":
        # Until the client hangs up. Waiting for what nobody has would leave the task to the garbage collector.
        await reader.read()
    elif reply.then == "reset":
        # Without a wait for what may still have to be sent, closing resets the connection.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
