"""How commands become bytes, and the server's errors ours."""

from __future__ import annotations

import socket
import threading

import pytest
import redis.asyncio
from redis._parsers.base import BaseParser
from redis.exceptions import DataError, ResponseError

from tests.processes import PATIENCE_S
from wire.address import RedisAddress
from wire.connection import connect, connect_async
from wire.errors import QueueUnavailableError, QueueUnusableError
from wire.redis_errors import translated

URL = "redis://localhost:1"


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "key", b"\x00value"),
        ("SCRIPT LOAD", "return 1"),
        ("EVALSHA", "a" * 40, 0, 7, -1.5, "\N{SNOWMAN}", b""),
        (b"PING",),
    ],
)
def test_commands_are_packed_as_redis_py_does_it(command: tuple[bytes | str | float, ...]) -> None:
    """Byte for byte, whatever kinds of arguments."""
    ours = connect_async(RedisAddress(URL)).connection_pool.make_connection()
    theirs = redis.asyncio.Redis.from_url(URL).connection_pool.make_connection()

    assert b"".join(ours.pack_command(*command)) == b"".join(theirs.pack_command(*command))


def test_what_redis_cannot_hold_is_refused() -> None:
    """As redis-py does: with its own error."""
    connection = connect_async(RedisAddress(URL)).connection_pool.make_connection()

    with pytest.raises(DataError):
        connection.pack_command("SET", "key", object())


@pytest.mark.parametrize(
    "reply",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:3.",
        (
            "ERR Error running script (call to f_1f): @user_script:3: @user_script: 3: "
            "-OOM command not allowed when used memory > 'maxmemory'."
        ),
        "NOSCRIPT No matching script. Please use EVAL.",
        "READONLY You can't write against a read only replica.",
        "READONLY You can't write against a read only replica. script: 1f, on @user_script:3.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
    ],
)
def test_what_passes_by_itself_is_waited_for(reply: str) -> None:
    """As redis-py reads it, which takes the code off some texts.

    Each of these says to try again later, and ends no program.
    """
    with pytest.raises(QueueUnavailableError), translated(RedisAddress(URL)):
        raise BaseParser.parse_error(reply)


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"<html></html>\r\n"]
)
def test_a_port_of_another_service_is_named(greeting: bytes) -> None:
    """One sentence, which is final: waiting would not make a Redis of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        address = RedisAddress(f"redis://127.0.0.1:{server.getsockname()[1]}")

        def answer() -> None:
            with server.accept()[0] as client:
                client.recv(1000)
                client.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            pytest.raises(
                QueueUnusableError,
                match=r"what answers at .* is not a Redis server .*: another service, such as HTTP or SSH",
            ),
            translated(address),
        ):
            connect(address).ping()
        thread.join()


def test_a_full_disk_of_redis_says_where_to_make_room() -> None:
    """It is waited for, and the user is told what fills up."""
    error = ResponseError("MISCONF Errors writing to the AOF file: No space left on device")

    with (
        pytest.raises(QueueUnavailableError, match=r"cannot write to its disk: make room .*TMPDIR.*No space left"),
        translated(RedisAddress(URL)),
    ):
        raise error


def test_what_redis_says_is_told_without_the_command() -> None:
    """Which redis-py puts before it, where several are sent at once: it is ours, and may be long."""
    said = (
        "Command # 1 (SET a (b) of pipeline\n1) of pipeline caused error: You can't write against a read only replica."
    )
    with (
        pytest.raises(QueueUnavailableError, match=r"cannot do it now: You can't write against a read only replica\Z"),
        translated(RedisAddress(URL)),
    ):
        raise redis.exceptions.ReadOnlyError(said)
