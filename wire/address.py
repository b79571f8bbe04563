"""Address and credentials of Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from wire.keys import DEFAULT_NAMESPACE

BLOCK_S = 2.0
"""Longest blocking wait in one command.

Above the socket timeout, redis-py would take the silence for a dead connection and send again.
"""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Address and credentials of Redis.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`, or as `moving_address` has it; may carry a password, so it stays out
            of `repr`.
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
        if self.has_tls:
            tls = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
            options.update({name: value for name, value in tls.items() if value})
        return options

    @property
    def has_tls(self) -> bool:
        return self.url.startswith("rediss")

    def shown(self) -> str:
        """The address without user and password, for messages."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
