"""One clock for the whole fleet: that of the Redis server.

Leases are compared inside Redis, by Redis' own time. The few times that travel in messages (submission, deadline) are on the same clock, so
that a machine whose clock is wrong neither loses a lease early nor keeps one too long.
"""

from __future__ import annotations

import time


class ServerClock:
    """This machine's estimate of the Redis server's clock; good to about one round trip."""

    def __init__(self) -> None:
        self._offset_s = 0.0

    def learn(self, server_s: float) -> None:
        """Take in what the server's clock said a moment ago (Unix seconds)."""
        self._offset_s = server_s - time.time()

    def now(self) -> float:
        """Unix time in seconds on the server's clock; on this machine's until `learn` was called."""
        return time.time() + self._offset_s
