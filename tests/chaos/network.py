"""What a fleet under test is told of its network, which can fail; and which kind of network this machine allows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.namespaces import Namespaces, why_no_namespaces
from tests.chaos.proxied import Proxies


class Network(AbstractContextManager[Any], Protocol):
    """Between every process of the fleet and Redis, a link of its own.

    Used in a `with` statement, in which Redis is started.

    Attributes:
        kind: How it fails, for the scoreboard.
    """

    kind: str

    def url(self, name: str) -> str:
        """How the process of that name reaches Redis."""

    def place(self, name: str) -> str:
        """Path of the network namespace in which that process has to live; empty for the one we are in."""

    def around_redis(self, command: Sequence[str]) -> list[str]:
        """The command that starts Redis where the links end."""

    def hold(self, name: str) -> None:
        """Let nothing pass, in either direction; nobody is told."""

    def hold_replies(self, name: str) -> None:
        """Let pass what the process sends, and nothing of what Redis replies."""

    def release(self, name: str) -> None:
        """Let everything pass again; what was held up arrives late."""

    def reset(self, name: str) -> None:
        """Let everything pass again; what was held up is lost, and the connections with it."""


NETWORKS = ("namespaces", "proxy")


def network_kind() -> str:
    """The better of the two that works here."""
    return "proxy" if why_no_namespaces() else "namespaces"


def network_of(kind: str, socket: Path, names: Sequence[str]) -> Network:
    """The network of one fleet; `socket` is where Redis can always be reached."""
    return Namespaces(socket, names) if kind == "namespaces" else Proxies(socket, names)
