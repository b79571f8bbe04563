"""One clock for the whole fleet: that of the Redis server.

Leases are compared inside Redis, by Redis' own time. The few times that travel in messages (submission, deadline) are
on the same clock, so that a machine whose clock is wrong neither loses a lease early nor keeps one too long.
"""

from __future__ import annotations

import time

# Goes on while a laptop sleeps, as the server does meanwhile; where there is no such clock, one that does not.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ServerClock:
    """This machine's estimate of the Redis server's clock; good to about one round trip.

    Between two looks at the server it goes by a clock that nobody sets: this machine's own time may be put right, or
    wrong, meanwhile.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.clock_gettime(_STEADY)

    def learn(self, server_s: float) -> None:
        """Record what the server's clock said a moment ago (Unix seconds)."""
        self._offset_s = server_s - time.clock_gettime(_STEADY)

    def now(self) -> float:
        """Unix time in seconds on the server's clock.

        On this machine's as it was at first, until `learn` was called.
        """
        return time.clock_gettime(_STEADY) + self._offset_s

    def ahead_s(self) -> float:
        """By how much this machine's clock, which logs go by, is ahead of the server's; negative if it is behind."""
        return time.time() - self.now()
