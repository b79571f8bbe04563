"""How to reach Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from batchfleet.settings.sections.section import DAY_S, Contradiction, Secret, Section, Text
from wire.keys import DEFAULT_NAMESPACE


def _safe_namespace(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        kind = "not_safe"
        message = (
            "cannot be part of a Redis key; "
            "use 1 to 64 letters, digits, dots, underscores and hyphens, a letter or digit first"
        )
        raise PydanticCustomError(kind, message)
    return value


def _redis_url(value: str) -> str:
    # Never the value itself in a message: it may hold a password.
    try:
        usable = _reaches_redis(value)
    except ValueError:  # A port that is no port, brackets that do not match.
        usable = False
    if "sentinel" in value.partition("://")[0].lower():
        kind = "not_a_redis_url"
        message = (
            "names Sentinel, which is not supported: "
            "give the address of the primary, or of a proxy or DNS name that follows it"
        )
        raise PydanticCustomError(kind, message)
    if not usable:
        kind = "not_a_redis_url"
        message = (
            "is not a Redis URL; write redis://HOST:PORT/0, rediss://HOST:PORT/0 (TLS), unix:///PATH or "
            "redis+file:///PATH (a file with HOST:PORT in it), and special characters of a password as %XX"
        )
        raise PydanticCustomError(kind, message)
    return value


def _reaches_redis(url: str) -> bool:
    parts = urlsplit(url)
    if parts.fragment or re.search(r"\s", url):
        return False
    if parts.scheme in {"redis+file", "rediss+file"}:
        return bool(parts.path) and not parts.netloc
    if parts.scheme == "unix":
        return bool(parts.path)
    # In redis://me:12/34@host the password is "12/34", but every parser takes "me" for the host: an @ this late is a
    # mistake.
    misread = "@" in parts.path + parts.query
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0 and not misread


Namespace = Annotated[str, AfterValidator(_safe_namespace)]

RedisUrl = Annotated[str, AfterValidator(_redis_url)]


class RedisSettings(Section):
    """How to reach Redis."""

    url: RedisUrl | None = Field(
        default=None,
        description=(
            "redis://, rediss:// (TLS) or unix:// URL; may hold a password. redis+file:///PATH or rediss+file:///PATH: "
            "the file holds HOST:PORT, and is read again for each connection."
        ),
        repr=False,
    )
    username: Text | None = Field(default=None, description="User name, if the server has users.")
    password: Secret | None = Field(default=None, description="Password, if the URL has none.")
    namespace: Namespace = Field(
        default=DEFAULT_NAMESPACE,
        description=("Prefix of every key; fleets with different namespaces can share a Redis."),
    )
    socket_timeout_s: float = Field(
        default=5.0, gt=0, le=300, description="Longest wait for Redis to connect or answer, in seconds."
    )
    patience_s: float = Field(
        default=600.0,
        ge=0,
        le=30 * DAY_S,
        description="Longest wait of a producer for an unreachable Redis, in seconds.",
    )
    tls_ca_file: Text | None = Field(default=None, description="Certificate authority of the server (PEM file).")
    tls_cert_file: Text | None = Field(
        default=None, description="Client certificate (PEM file), if the server asks for one."
    )
    tls_key_file: Text | None = Field(default=None, description="Its key (PEM file).")

    def contradictions(self) -> Iterator[Contradiction]:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            yield Contradiction(
                ("tls_cert_file", "tls_key_file"),
                "a certificate needs its key; set both tls_cert_file and tls_key_file, or neither",
            )
        tls = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if self.url is not None and any(tls) and not self.url.startswith("rediss"):
            keys = ("tls_ca_file", "tls_cert_file", "tls_key_file", "url")
            yield Contradiction(
                keys,
                (
                    "TLS files are given but the url does not use TLS; "
                    "write the url with rediss://, or remove the tls_ settings"
                ),
            )
        if self.url is not None and self.password is not None and urlsplit(self.url).password:
            yield Contradiction(("password", "url"), "a password is given here and in the url; keep one of the two")
