"""A clock that is wrong in one process: what Python's `time.time` says there is shifted.

Its monotonic clock stays right, as on a real machine. Made without root and without a preloaded library. What asks the
kernel past Python (`datetime.now`) is not shifted; of the fleet only RQ's own bookkeeping does.
"""

from __future__ import annotations

import time


def shift(seconds: float) -> None:
    """Make this process' clock wrong from now on."""
    right, right_ns = time.time, time.time_ns
    setattr(time, "time", lambda: right() + seconds)  # noqa: B010 (mypy forbids the plain assignment, rightly)
    setattr(time, "time_ns", lambda: right_ns() + int(seconds * 1e9))  # noqa: B010
