"""Python's collection of garbage, as suits the programs of a fleet."""

from __future__ import annotations

import gc


def collect_garbage_rarely() -> None:
    """For processes through which records go by the thousand.

    Those are hardly ever part of a cycle, and what is there by now stays.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
