"""Images over TLS: the address was checked and is connected to, and the certificate is still that of the name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpu_worker.images.errors import ImageError
from gpu_worker.images.fetch import Fetcher
from gpu_worker.images.options import ImageOptions
from tests.redis_servers import make_certificates

LOOPBACK = ImageOptions(private_addresses=True)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a server on 127.0.0.2, whose certificate is for localhost and 127.0.0.1."""
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbytes")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.2", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def fetched(url: str) -> bytes:
    """The bytes, of one try."""
    fetcher = Fetcher(LOOPBACK)
    try:
        return await fetcher.fetch(url, 100)
    finally:
        await fetcher.close()


async def test_the_certificate_is_checked_for_the_name_of_the_address(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for the address that is connected to; authorities are the system's, or those that SSL_CERT_FILE names."""

    async def resolved(_: str, *, private: bool) -> list[str]:
        assert private
        return ["127.0.0.2"]

    monkeypatch.setattr("gpu_worker.images.fetch.allowed_addresses", resolved)
    name, address = f"https://localhost:{port}/a.png", f"https://127.0.0.2:{port}/a.png"

    with pytest.raises(ImageError, match="cannot be asked"):
        await fetched(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert await fetched(name) == b"bytes"
    with pytest.raises(ImageError, match="cannot be asked"):
        await fetched(address)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ImageError, match="SSL_CERT_FILE"):
        await fetched(name)
