"""The one place where redis-py's errors become ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import redis
import redis.asyncio
import redis.exceptions

from wire.address import RedisAddress
from wire.errors import FleetError, QueueDamagedError, QueueUnavailableError, QueueUnusableError


@contextlib.contextmanager
def translated(address: RedisAddress) -> Iterator[None]:
    """Turn redis-py's errors into ours. Everything that talks to Redis runs inside one of these."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        # redis-py calls it an authentication error as well when the server merely wants a password.
        raise QueueUnusableError(
            f"Redis at {address.shown()} does not accept the user or password ({_words(error)}); set redis.password, "
            "or the URL's"
        ) from error
    except redis.exceptions.NoPermissionError as error:
        raise QueueUnusableError(
            f"Redis at {address.shown()} does not allow what a fleet needs: {_words(error)}"
        ) from error
    except redis.exceptions.InvalidResponse as error:
        raise QueueUnusableError(
            f"what answers at {address.shown()} is not a Redis server ({_words(error)}): another service, such as HTTP "
            "or SSH, has that port"
        ) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        if advice := _tls_advice(str(error)):
            raise QueueUnusableError(
                f"Redis at {address.shown()}: TLS handshake failed ({_words(error)}); {advice}"
            ) from error
        raise QueueUnavailableError(
            f"Redis at {address.shown()} does not answer: {_words(error)}{_without_certificate(address)}"
        ) from error
    except RuntimeError as error:
        # What uvloop says of a connection that broke while redis-py was just setting it up.
        if "handler is closed" not in str(error):
            raise
        raise QueueUnavailableError(f"Redis at {address.shown()} does not answer: the connection broke") from error
    except redis.exceptions.ResponseError as error:
        ours = _in_our_words(error, address)
        if ours is None:
            raise
        raise ours from error


TLS_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": (
        "set redis.tls_ca_file to what signed the server's certificate, and use the host name that it certifies"
    ),
    "CERTIFICATE_REQUIRED": "the server wants a client certificate: set redis.tls_cert_file and redis.tls_key_file",
    "HANDSHAKE_FAILURE": "the server may want another client certificate: see redis.tls_cert_file",
    "UNKNOWN_CA": "the server does not trust our certificate: see redis.tls_cert_file",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS: write redis:// instead of rediss://, or give the TLS port",
}


def _without_certificate(address: RedisAddress) -> str:
    # In TLS 1.3 a server says so only after the handshake, and the end of the connection may overtake its word.
    wants = address.has_tls and not address.cert_file
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
    """Whether Redis refused a write because its memory is full. Removing entries makes room."""
    # Redis 6.2 says it of a script in the middle of a longer text, for which redis-py has no class.
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "-OOM " in str(error)


def _in_our_words(error: redis.exceptions.ResponseError, address: RedisAddress) -> FleetError | None:
    """None for errors that should not occur."""
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
    """Without the command, which redis-py names where there were several."""
    words = re.sub(r"\ACommand # \d+ \(.*\) of pipeline caused error: ", "", str(error), flags=re.DOTALL)
    return words.rstrip(".") or type(error).__name__
