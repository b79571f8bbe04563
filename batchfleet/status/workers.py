"""What workers last said of themselves, as far as whoever started them wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from batchfleet.status.replies import fraction, text
from wire.codec import whole_number
from wire.keys import Keys


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """One worker. `pid`: of its process on its own host; 0 if it does not say. `gpus`: which it has leased."""

    name: str
    pid: int
    state: str
    waits_for: str = ""
    capacity: int = 0
    in_flight: int = 0
    answers_per_s: float = 0.0
    gpus: tuple[str, ...] = ()


def see_workers(client: redis.Redis, keys: Keys, host: str | None = None) -> list[WorkerSnapshot]:
    """Those that report; only those of `host` (as `socket.gethostname()` has it there) if one is given."""
    names: Any = client.zrange(keys.workers, 0, -1)
    known = [name for name in map(text, names) if host is None or name.rpartition("-")[0] == host]
    with client.pipeline(transaction=False) as pipe:
        for name in known:
            pipe.hmget(keys.worker(name), "pid", "state", "waits_for", "capacity", "in_flight", "answers_per_s", "gpus")
        seen = zip(known, pipe.execute(), strict=True)
    return [
        WorkerSnapshot(
            name,
            whole_number(pid),
            text(state),
            text(waits_for or b""),
            whole_number(capacity),
            whole_number(in_flight),
            fraction(answers_per_s),
            tuple(filter(None, text(gpus or b"").split(","))),
        )
        for name, (pid, state, waits_for, capacity, in_flight, answers_per_s, gpus) in seen
        if state
    ]
