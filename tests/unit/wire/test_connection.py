"""How commands become bytes."""

from __future__ import annotations

import pytest
import redis.asyncio
from redis.exceptions import DataError

from wire.connection import RedisAddress, connect_async

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
