"""A network that can fail, without root.

Every process of the fleet reaches Redis through a TCP proxy of its own, which holds traffic up or breaks connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65536


class Link:
    """Forwards from a loopback port to the socket of Redis. All methods belong to the event loop's thread."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._passing = asyncio.Event()
        self._passing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def hold(self) -> None:
        """Let nothing pass, in either direction; nobody is told."""
        self._passing.clear()

    def hold_replies(self) -> None:
        """Let requests pass, but no replies."""
        self._answering.clear()

    def release(self) -> None:
        """Deliver what was held up, and continue."""
        self._passing.set()
        self._answering.set()

    def reset(self) -> None:
        """Break every connection; what was held up is lost."""
        for writer in self._open:
            writer.transport.abort()
        self.release()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        inner: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            inner_reader, inner = await asyncio.open_unix_connection(self._socket)
            self._open.add(inner)
            await asyncio.gather(
                self._pump(reader, inner, self._passing),
                self._pump(inner_reader, writer, self._passing, self._answering),
            )
        except OSError:
            # Redis is away, or either side broke off: so does the other.
            pass
        finally:
            for side in filter(None, (writer, inner)):
                self._open.discard(side)
                side.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._through(gates)
            writer.write(data)
            await writer.drain()
        # What one side sent before it left still arrives; then the other side hears of it.
        await self._through(gates)
        writer.close()

    @staticmethod
    async def _through(gates: Sequence[asyncio.Event]) -> None:
        while not all(gate.is_set() for gate in gates):
            for gate in gates:
                await gate.wait()


class Proxies:
    """The links of a fleet, in a thread of their own. A `Network`."""

    kind = "proxy"

    def __init__(self, socket: Path, names: Sequence[str]) -> None:
        self._socket = socket
        self._names = names
        self._links: dict[str, Link] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def url(self, name: str) -> str:
        return f"redis://127.0.0.1:{self._links[name].port}/0"

    def place(self, _name: str) -> str:
        return ""

    def around_redis(self, command: Sequence[str]) -> list[str]:
        return list(command)

    def hold(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._links[name].hold)

    def hold_replies(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._links[name].hold_replies)

    def release(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._links[name].release)

    def reset(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self._links[name].reset)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            for name in self._names:
                self._links[name] = Link(self._socket)
                await stack.enter_async_context(await self._links[name].listen())
            self._ready.set()
            await self._stopping.wait()
            for link in self._links.values():
                link.reset()
