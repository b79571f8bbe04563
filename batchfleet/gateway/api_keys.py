"""Who may ask: keys, of which only hashes are kept.

A line of a keys file is `NAME sha256:HEX`; `batchfleet gateway --new-key NAME` makes one. Whoever has a key of a name
sees the files and batches of that name, so several lines of one name let a key be replaced without losing anything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from batchfleet.gateway.errors import ApiError
from wire.errors import UsageError

_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,31})\s+sha256:(?P<digest>[0-9a-fA-F]{64})")
KEY_PREFIX = "sk-batchfleet-"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that are let in: pairs of an owner's name and the SHA-256 of a key of theirs."""

    entries: tuple[tuple[str, bytes], ...] = ()

    def owner_of(self, key: str) -> str | None:
        """Whose key that is; None for nobody's. How long it takes tells nothing about the keys that there are."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        owner = None
        for name, known in self.entries:
            if hmac.compare_digest(digest, known):
                owner = name
        return owner


def read_keys(lines: Iterable[str], where: str) -> KeyRing:
    """The keys in lines of a file or a variable; blank ones and those that begin with # are passed over.

    Raises:
        UsageError: A line is no `NAME sha256:HEX`. What it is instead is not said: it might be a key.
    """
    entries = []
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{where}, line {number}: it must be NAME sha256:HEX (a name of up to 32 letters, digits, dots, "
                "hyphens and underscores, and the hash of a key); `batchfleet gateway --new-key NAME` makes one"
            )
        entries.append((match["name"], bytes.fromhex(match["digest"])))
    return KeyRing(tuple(entries))


def new_key(name: str) -> tuple[str, str]:
    """A new key, and its line for the keys file.

    Raises:
        UsageError: It cannot be a name.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    read_keys([line], f"--new-key {name}")
    return key, line


def owner_of(request: Request) -> str:
    """Whose request it is: the name of its key, or '' where the gateway has no keys.

    Raises:
        ApiError: It came without a valid key, to a place that is open to all otherwise.
    """
    owner: str | None = request.state.owner
    if owner is None:
        raise no_key(given=False)
    return owner


def no_key(*, given: bool) -> ApiError:
    words = (
        "Incorrect API key provided. Ask whoever runs this gateway for a key."
        if given
        else "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer YOUR_KEY"
    )
    return ApiError(401, words, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
