"""A clock that is wrong in one process: what Python's `time.time` says there is shifted. Its monotonic clock stays right, as on a real machine.

Made without root and without a preloaded library: the process finds a `sitecustomize` on its PYTHONPATH that calls `shift`. What asks the
kernel past Python (`datetime.now`) is not shifted; of the fleet only RQ's own bookkeeping does.
"""

from __future__ import annotations

import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def shift(seconds: float) -> None:
    """Make this process' clock wrong from now on."""
    right, right_ns = time.time, time.time_ns
    setattr(time, "time", lambda: right() + seconds)  # noqa: B010 (mypy forbids the plain assignment, rightly)
    setattr(time, "time_ns", lambda: right_ns() + int(seconds * 1e9))  # noqa: B010


def python_path(folder: Path, seconds: float) -> str:
    """A PYTHONPATH with which a process' clock is `seconds` wrong. Writes into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"from tests.chaos.wrong_clock import shift\n\nshift({seconds!r})\n", encoding="utf-8")
    return f"{folder}:{ROOT}"
