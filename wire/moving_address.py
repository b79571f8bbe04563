"""A Redis whose address stands in a file, which everybody reads again for each connection: it may move to another host.

`redis+file:///PATH`, or `rediss+file:///PATH` with TLS; the file holds HOST:PORT in its first line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection
import redis.exceptions

SCHEMES = ("redis+file", "rediss+file")
LONGEST = 300
"""Characters of a host's name and a port."""


def address_file(url: str) -> Path | None:
    """The file that a URL names; None for the URL of a fixed address."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme in SCHEMES else None


def read_address(path: Path) -> tuple[str, int]:
    """Host and port.

    Raises:
        redis.ConnectionError: There is no such file yet, or no address in it: to be tried again, like a server that is
            away.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(LONGEST).strip()
    except OSError as error:
        raise redis.exceptions.ConnectionError(f"its address is not in {path}: {error.strerror or error}") from None
    host, _, port = line.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):  # noqa: PLR2004 (ports have 16 bits)
        raise redis.exceptions.ConnectionError(f"no HOST:PORT in the first line of {path}")
    return host.strip("[]"), int(port)


class _Moving:
    """A mixin for redis-py's connections, those of asyncio included, whose `_connect` gives a coroutine."""

    def __init__(self, address_file: Path, **options: Any) -> None:  # noqa: ANN401 (redis-py's, whatever they are)
        super().__init__(**options)
        self._address_file = address_file

    def _connect(self) -> Any:  # noqa: ANN401 (a socket, or a coroutine)
        self.host, self.port = read_address(self._address_file)
        return super()._connect()  # type: ignore[misc] # that of what this is mixed into


class _MovingPlain(_Moving, redis.connection.Connection):
    pass


class _MovingTls(_Moving, redis.connection.SSLConnection):
    pass


class _MovingPlainAsync(_Moving, redis.asyncio.connection.Connection):
    pass


class _MovingTlsAsync(_Moving, redis.asyncio.connection.SSLConnection):
    pass


def pool(url: str, options: dict[str, Any]) -> redis.ConnectionPool:
    """Connections to where the file says."""
    kind = _MovingTls if url.startswith("rediss") else _MovingPlain
    return redis.ConnectionPool(connection_class=kind, address_file=address_file(url), **options)


def async_pool(url: str, options: dict[str, Any]) -> redis.asyncio.ConnectionPool:
    """The same for asyncio."""
    kind = _MovingTlsAsync if url.startswith("rediss") else _MovingPlainAsync
    return redis.asyncio.ConnectionPool(connection_class=kind, address_file=address_file(url), **options)
