"""Where the records of a run go: into a file, or to a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wire.messages import Answer, Failure

Received = tuple[bytes, Answer | Failure]
"""(entry in the stream of records, record)."""


class Sink(Protocol):
    """Called by the thread that receives."""

    def put(self, records: Sequence[Received]) -> None: ...

    def has_room(self, wait_s: float) -> bool:
        """Whether more may be put; waits up to `wait_s` seconds for it."""

    def settle(self, received: bytes) -> bytes:
        """Make safe what was handled.

        Args:
            received: The last entry that came from Redis; what was not put was handled before.

        Returns:
            The last entry that need not come again, even if this process dies now; empty for none.
        """

    def finish(self, error: BaseException | None) -> None:
        """Nothing more will be put, at the end or after an error. Called once."""

    def is_settled(self, wait_s: float) -> bool:
        """Whether everything put was handled; waits up to `wait_s` seconds for it."""
