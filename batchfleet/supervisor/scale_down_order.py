"""Which workers go first where there are too many: those that would be missed least."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from batchfleet.status.workers import WorkerSnapshot


class Usefulness(IntEnum):
    """What a worker's end would cost, from nothing on."""

    BETWEEN_TRIES = 0
    STANDBY = 1
    BOOTING = 2
    UNHEARD = 3
    IDLE = 4
    HOLDS_WORK = 5


def usefulness(known: WorkerSnapshot | None, *, is_running: bool) -> Usefulness:
    """Of one worker, by what is known of it; `is_running`: its process."""
    if not is_running:
        return Usefulness.BETWEEN_TRIES
    if known is None:
        return Usefulness.UNHEARD
    if known.state in {"running", "waiting"} and not known.in_flight:
        return Usefulness.IDLE
    # One that drains already holds work: a second signal would have it give that back.
    return {"standby": Usefulness.STANDBY, "booting": Usefulness.BOOTING}.get(known.state, Usefulness.HOLDS_WORK)


def first_to_go(workers: Mapping[int, Usefulness], count: int, *, only_idle: bool) -> list[int]:
    """Numbers of up to `count` workers, the least useful first; of equals, the youngest.

    Args:
        only_idle: None that holds work, or may.
    """
    kept = {Usefulness.HOLDS_WORK, Usefulness.UNHEARD} if only_idle else set()
    free = [number for number, rank in workers.items() if rank not in kept]
    return sorted(free, key=lambda number: (workers[number], -number))[: max(0, count)]
