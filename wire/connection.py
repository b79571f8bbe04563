"""How every program reaches Redis: one way to connect, one place where redis-py's errors become ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from wire.errors import FleetError, QueueDamagedError, QueueUnavailableError, QueueUnusableError
from wire.keys import DEFAULT_NAMESPACE

OLDEST_REDIS = (6, 2)
"""BLMOVE, XTRIM MINID and exact WATCH on expiring keys came with Redis 6.2."""

MODES = {
    "sentinel": "a Sentinel, which holds no data; give the address of the primary that it watches",
    "cluster": "a cluster, and a fleet's scripts need all their keys in one place; use a single primary",
}
"""How a server can run that is no place for a fleet."""

BLOCK_S = 2.0
"""Longest blocking wait in one command.

Above the socket timeout, redis-py would take the silence for a dead connection and send again.
"""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is and how to be let in.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`; may carry a password, so it stays out of `repr`.
        namespace: Prefix of all keys; fleets with different ones do not see each other.
        socket_timeout_s: Longest silence in the middle of a command, in seconds; at least 1.5 times `BLOCK_S`.
        ca_file, cert_file, key_file: For TLS; None for the system's authorities and no client certificate.
    """

    url: str = field(repr=False)
    namespace: str = DEFAULT_NAMESPACE
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    socket_timeout_s: float = 5.0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": max(self.socket_timeout_s, BLOCK_S * 1.5),
            "socket_connect_timeout": self.socket_timeout_s,
            # Our own loops retry, with a back-off, and only what is safe to send twice.
            "retry": Retry(NoBackoff(), 0),
            # RESP3 changes the shape of stream replies.
            "protocol": 2,
        }
        if self.username:
            options["username"] = self.username
        if self.password:
            options["password"] = self.password
        if self.url.startswith("rediss://"):
            tls = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
            options.update({name: value for name, value in tls.items() if value})
        return options

    def shown(self) -> str:
        """The address without user and password, for messages."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def connect(address: RedisAddress) -> redis.Redis:
    """A client with a pool of its own; nothing is sent yet."""
    return redis.Redis.from_url(address.url, **address.options())


def connect_async(address: RedisAddress) -> redis.asyncio.Redis:
    """The same for asyncio."""
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
    """Ask once whether a fleet can live there.

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
        msg = f"Redis at {address.shown()} is {MODES[mode]}"
        raise QueueUnusableError(msg)
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
    if version < OLDEST_REDIS:
        msg = (
            f"Redis at {address.shown()} is version {info.get('redis_version')}; {'.'.join(map(str, OLDEST_REDIS))} or "
            "newer is needed"
        )
        raise QueueUnusableError(msg)
    if role == "slave":
        msg = f"Redis at {address.shown()} is a read-only replica; give the address of its primary"
        raise (
            QueueUnavailableError(f"{msg}, unless it is about to become one")
            if wait_for_primary
            else QueueUnusableError(msg)
        )
    if policy not in {"", "noeviction"}:
        msg = (
            f"Redis at {address.shown()} would drop questions and answers when it is full (maxmemory-policy {policy}); "
            "set it to noeviction"
        )
        raise QueueUnusableError(msg)


@contextlib.contextmanager
def opened(address: RedisAddress, *, may_evict: bool = True) -> Iterator[redis.Redis]:
    """A client for one command of a person's, of a server that was checked.

    It is closed after the block, and errors in it are ours.
    """
    with connect(address) as client, translated(address):
        check_server(client, address, may_evict=may_evict)
        yield client


@contextlib.contextmanager
def translated(address: RedisAddress) -> Iterator[None]:
    """Turn redis-py's errors into ours. Everything that talks to Redis runs inside one of these."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        # redis-py calls it an authentication error as well when the server merely wants a password.
        msg = (
            f"Redis at {address.shown()} does not accept the user or password ({_words(error)}); set redis.password, "
            "or the URL's"
        )
        raise QueueUnusableError(msg) from error
    except redis.exceptions.NoPermissionError as error:
        msg = f"Redis at {address.shown()} does not allow what a fleet needs: {_words(error)}"
        raise QueueUnusableError(msg) from error
    except redis.exceptions.InvalidResponse as error:
        msg = (
            f"what answers at {address.shown()} is no Redis ({_words(error)}): another service, such as HTTP or SSH, "
            "has that port"
        )
        raise QueueUnusableError(msg) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        if advice := _tls_advice(str(error)):
            msg = f"Redis at {address.shown()}: TLS handshake failed ({_words(error)}); {advice}"
            raise QueueUnusableError(msg) from error
        msg = f"Redis at {address.shown()} does not answer: {_words(error)}{_without_certificate(address)}"
        raise QueueUnavailableError(msg) from error
    except RuntimeError as error:
        # What uvloop says of a connection that broke while redis-py was just setting it up.
        if "handler is closed" not in str(error):
            raise
        msg = f"Redis at {address.shown()} does not answer: the connection broke"
        raise QueueUnavailableError(msg) from error
    except redis.exceptions.ResponseError as error:
        ours = _in_our_words(error, address)
        if ours is None:
            raise
        raise ours from error


TLS_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": (
        "set redis.tls_ca_file to what signed the server's certificate, and name the host as that does"
    ),
    "CERTIFICATE_REQUIRED": "the server wants a client certificate: set redis.tls_cert_file and redis.tls_key_file",
    "HANDSHAKE_FAILURE": "the server may want another client certificate: see redis.tls_cert_file",
    "UNKNOWN_CA": "the server does not trust our certificate: see redis.tls_cert_file",
    "WRONG_VERSION_NUMBER": "nobody speaks TLS there: write redis:// instead of rediss://, or give the TLS port",
}


def _without_certificate(address: RedisAddress) -> str:
    # In TLS 1.3 a server says so only after the handshake, and the end of the connection may overtake its word.
    wants = address.url.startswith("rediss://") and not address.cert_file
    return "; if it wants a client certificate, set redis.tls_cert_file and redis.tls_key_file" if wants else ""


def _tls_advice(words: str) -> str:
    return next((advice for sign, advice in TLS_ADVICE.items() if sign in words.upper().replace(" ", "_")), "")


PASSING = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.NoScriptError,
)
"""Time alone may mend it: a failover, or scripts that were flushed before they were called.

redis-py takes the code off the text of these.
"""
PASSES = (
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "READONLY",
    "UNBLOCKED",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "NOSCRIPT",
    "BUSY ",
)
"""The same where there is no class, or the code stands in the middle, as of an error inside a script.

MISCONF is also what a full disk under the append-only file gives.
"""
FORBIDDEN = ("NOPERM", "can't run this command", "can't access at least one of the keys")
"""The user may not do it; the last two are Redis 6.2's words inside of a script."""
DAMAGE = (
    "WRONGTYPE",
    "is not an integer",
    "not a valid float",
    "would overflow",
    "attempt to ",
    "exhausted the last possible ID",
)
"""A key holds what no fleet wrote there; `attempt to` is Lua's, of a script that calculates with it."""


def is_full(error: redis.exceptions.ResponseError) -> bool:
    """Whether Redis refused a write because its memory is full. What is taken off makes room."""
    # Redis 6.2 says it of a script in the middle of a longer text, for which redis-py has no class.
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "-OOM " in str(error)


def _in_our_words(error: redis.exceptions.ResponseError, address: RedisAddress) -> FleetError | None:
    """None for what should not happen at all."""
    words = _words(error)

    def shows(signs: tuple[str, ...]) -> bool:
        return any(sign in words for sign in signs)

    if is_full(error):
        return QueueUnavailableError(
            f"Redis at {address.shown()} is out of memory; raise its maxmemory or lower limits.max_pending_bytes"
        )
    if "MISCONF" in words:
        where = "where it keeps its data (TMPDIR, if `batchfleet run` started it)"
        return QueueUnavailableError(f"Redis at {address.shown()} cannot write to its disk: make room {where}; {words}")
    if shows(FORBIDDEN):
        return QueueUnusableError(f"Redis at {address.shown()} does not allow what a fleet needs: {words}")
    # Of a replica as well: who runs was let in by a primary, and there will be one again.
    if isinstance(error, PASSING) or shows(PASSES):
        return QueueUnavailableError(f"Redis at {address.shown()} cannot do it now: {words}")
    if shows(DAMAGE):
        then = "the leading batcher puts it among the dead letters (`batchfleet dead list`)"
        return QueueDamagedError(
            f"Redis at {address.shown()} holds something that no fleet wrote there ({words}); {then}"
        )
    return None


def _words(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
