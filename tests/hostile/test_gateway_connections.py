"""What strangers can do to the gateway's door: each gets one clear error or is hung up on, and others are answered."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import PATIENCE_S, Processes, wait_until

LIMITS = ("--idle-timeout-s", "1", "--body-timeout-s", "1", "--max-body-mib", "1", "--max-connections", "20")
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def address(redis_server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Of a gateway with small limits, which still answers in the end."""
    with Processes(redis_server.url, tmp_path) as processes:
        url = processes.gateway(*LIMITS)
        yield "127.0.0.1", int(url.rpartition(":")[2])
        wait_until(lambda: _is_well(url), "it still answers")
        assert "Traceback" not in processes.log("gateway")


def _is_well(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/health").is_success
    return False


def said(connection: socket.socket) -> bytes:
    """All that comes until the other end hangs up."""
    connection.settimeout(PATIENCE_S)
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def error_in(response: bytes) -> tuple[int, str]:
    """Status and words of an error in OpenAI's shape."""
    head, _, body = response.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["message"]


def _bodies(connection: socket.socket) -> None:
    """A chunked body without end, as far as it is taken."""
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(64):
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


SENT: dict[str, tuple[bytes | Callable[[socket.socket], None], int, str]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\xfc\x03\x03" * 20 + b"\r\n\r\n", 400, "Invalid HTTP"),
    "half a head": (b"GET / HTTP/1.1\r\nHost: loc", 408, "did not come in time"),
    "a head without end": (b"GET /health HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000, 431, "longer than 65536"),
    "a body that does not come": (POST + b"Content-Length: 100\r\n\r\n{", 408, "did not come in time"),
    "a large body, announced": (POST + b"Content-Length: 99999999\r\n\r\n", 413, "at most 1048576 bytes"),
    "a large body, by surprise": (_bodies, 413, "at most 1048576 bytes"),
    "a length that is none": (POST + b"Content-Length: -1\r\n\r\n", 400, "Invalid HTTP"),
    "two lengths": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400, "Invalid HTTP"),
}


def test_each_mistake_gets_one_clear_error(address: tuple[str, int]) -> None:
    """Whatever comes in place of a request, and whatever its pace, is answered in OpenAI's shape and hung up on."""
    for what, (data, status, words) in SENT.items():
        with socket.create_connection(address) as connection:
            if isinstance(data, bytes):
                with contextlib.suppress(OSError):
                    connection.sendall(data)
            else:
                data(connection)
            told, message = error_in(said(connection))
            assert (told, words in message) == (status, True), what


def test_those_who_only_connect_make_room_for_others(address: tuple[str, int]) -> None:
    """Of more connections than there may be, the idle ones go first, and silent ones go after their time."""
    with contextlib.ExitStack() as held:
        silent = [held.enter_context(socket.create_connection(address)) for _ in range(60)]
        wait_until(lambda: _is_well(f"http://127.0.0.1:{address[1]}"), "others are answered")
        assert [said(connection) for connection in silent] == [b""] * 60


def test_a_client_that_does_not_read_is_hung_up_on(address: tuple[str, int]) -> None:
    """It asks and asks in one connection, and takes no answer; the gateway does not keep them for it."""
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        # Each with a large answer: what lies between the two is full at once.
        with pytest.raises(ConnectionError):  # noqa: PT012 (whichever send it is that finds nobody)
            connection.sendall(b"GET /page/htmx.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000)
            for _ in range(int(PATIENCE_S)):
                # Only who sends learns that nobody is there. Seldom: the kernel may find more room each time.
                time.sleep(3)
                connection.send(b"G")
