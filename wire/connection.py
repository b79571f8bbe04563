"""How every program reaches Redis: one way to connect, one place where redis-py's errors become ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis
import redis.asyncio
import redis.exceptions

from wire import moving_address
from wire.address import RedisAddress
from wire.errors import QueueUnavailableError, QueueUnusableError
from wire.redis_errors import translated

OLDEST_REDIS = (6, 2)
"""BLMOVE, XTRIM MINID and exact WATCH on expiring keys came with Redis 6.2."""

MODES = {
    "sentinel": "a Sentinel, which holds no data; give the address of the primary that it watches",
    "cluster": "a cluster, and a fleet's scripts need all their keys in one place; use a single primary",
}
"""How a server can run that is no place for a fleet."""


def connect(address: RedisAddress) -> redis.Redis:
    """A client with a pool of its own; nothing is sent yet."""
    if moving_address.address_file(address.url):
        return redis.Redis.from_pool(moving_address.pool(address.url, address.options()))
    return redis.Redis.from_url(address.url, **address.options())


def connect_async(address: RedisAddress) -> redis.asyncio.Redis:
    """The same for asyncio."""
    if moving_address.address_file(address.url):
        client = redis.asyncio.Redis.from_pool(moving_address.async_pool(address.url, address.options()))
    else:
        client = redis.asyncio.Redis.from_url(address.url, **address.options())
    client.connection_pool.connection_class = _packing_in_c(client.connection_pool.connection_class)
    return client


def _packing_in_c(
    kind: type[redis.asyncio.connection.AbstractConnection],
) -> type[redis.asyncio.connection.AbstractConnection]:
    """The same kind of connection, with commands packed by hiredis, as redis-py does it for clients without asyncio.

    In Python it takes four times as long, and a worker packs every record.
    """
    try:
        import hiredis  # noqa: PLC0415 (a tree on PYTHONPATH may lack it)
    except ImportError:
        return kind

    def pack_command(_self: object, *args: bytes | str | float) -> list[bytes]:
        # `SCRIPT LOAD` and the like are two words for Redis.
        words = args[0].encode().split() if isinstance(args[0], str) else [args[0]]
        try:
            return [hiredis.pack_command((*words, *args[1:]))]
        except TypeError as error:
            raise redis.exceptions.DataError(str(error)) from error

    return type(kind.__name__, (kind,), {"pack_command": pack_command})


def check_server(
    client: redis.Redis, address: RedisAddress, *, may_evict: bool = False, wait_for_primary: bool = False
) -> None:
    """Check once whether a fleet can use the server.

    Args:
        may_evict: Pass over that it would drop keys when it is full, for those who only look.
        wait_for_primary: Whether a replica may become the primary soon: a service that is started again in the middle
            of a failover waits for it, as those do that run. A person who gives the address of a replica is told so.

    Raises:
        QueueUnavailableError: It does not answer, or is a replica that is waited for.
        QueueUnusableError: It answers, but is too old, a replica, would drop keys, or does not let us in.
    """
    with translated(address):
        info: dict[str, Any] = client.info("server")
        role = client.info("replication").get("role")
        policy = "" if may_evict else client.info("memory").get("maxmemory_policy", "")
    mode = info.get("redis_mode")
    if mode in MODES:
        raise QueueUnusableError(f"Redis at {address.shown()} is {MODES[mode]}")
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
    if version < OLDEST_REDIS:
        raise QueueUnusableError(
            f"Redis at {address.shown()} is version {info.get('redis_version')}; {'.'.join(map(str, OLDEST_REDIS))} or "
            "newer is needed"
        )
    if role == "slave":
        msg = f"Redis at {address.shown()} is a read-only replica; give the address of its primary"
        raise (
            QueueUnavailableError(f"{msg}, unless it is about to become one")
            if wait_for_primary
            else QueueUnusableError(msg)
        )
    if policy not in {"", "noeviction"}:
        raise QueueUnusableError(
            f"Redis at {address.shown()} would drop questions and answers when it is full (maxmemory-policy {policy}); "
            "set it to noeviction"
        )


@contextlib.contextmanager
def opened(address: RedisAddress, *, may_evict: bool = True) -> Iterator[redis.Redis]:
    """A client for one command of a person's, of a server that was checked.

    It is closed after the block, and errors in it are ours.
    """
    with connect(address) as client, translated(address):
        check_server(client, address, may_evict=may_evict)
        yield client
