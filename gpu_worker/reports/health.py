"""Whether the worker or the batcher of this host does its work: what a container's health check asks.

That a process exists says little. A worker reports to Redis only after it has seen its engine alive, with the leases it
renews; a batcher only from the loop that does its work. So a fresh report means: engine answers, Redis reachable,
leases renewed.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from wire.keys import Keys
from wire.reports import batcher_report

AT_WORK = frozenset({"running", "standby", "waiting", "draining", "leading"})
"""States in which nobody needs to do anything.

A worker in standby has no GPUs yet, and takes over as soon as there are some; one that waits for its
server would not wait less if it was started anew."""


def health_problem(client: redis.Redis, keys: Keys, host: str, *, patience_s: float) -> str | None:
    """What is wrong with the worker or batcher that runs on `host`, in one line; None if nothing is. Changes nothing.

    Args:
        host: As `socket.gethostname()` has it there. Of several on one host, the healthiest counts: a container has
            one.
        patience_s: How old its last report may be.
    """
    reports = [*_workers(client, keys, host), *_batchers(client, keys, host)]
    if not reports:
        return f"no worker or batcher of {host} reports"
    ills = [_ill(name, state, age_s, patience_s) for name, state, age_s in reports]
    return None if None in ills else ills[0]


def _ill(name: str, state: str, age_s: float, patience_s: float) -> str | None:
    if age_s > patience_s:
        return f"{name} has not reported for {age_s:.0f} s"
    return None if state in AT_WORK else f"{name} is {state}"


def _workers(client: redis.Redis, keys: Keys, host: str) -> list[tuple[str, str, float]]:
    """Name, state and age of the last report in seconds."""
    time_there: Any = client.time()
    now = time_there[0] + time_there[1] / 1e6
    found: Any = client.zrange(keys.workers, 0, -1, withscores=True)
    names = [(name.decode("utf-8", "replace"), now - at_ms / 1000) for name, at_ms in found]
    ours = [(name, age_s) for name, age_s in names if _is_of(host, name, parts=1)]
    states: list[Any] = [client.hget(keys.worker(name), "state") for name, _ in ours]
    return [
        (name, state.decode("utf-8", "replace"), age_s)
        for (name, age_s), state in zip(ours, states, strict=True)
        if state is not None
    ]


def _batchers(client: redis.Redis, keys: Keys, host: str) -> list[tuple[str, str, float]]:
    found: Any = client.hgetall(keys.batchers)
    said = {name.decode("utf-8", "replace"): batcher_report(report) for name, report in found.items()}
    reports = {name: report for name, report in said.items() if report is not None and _is_of(host, name, parts=2)}
    # A batcher's `at` is by its host's clock, which is ours.
    return [(name, str(report["state"]), time.time() - float(report["at"])) for name, report in reports.items()]


def _is_of(host: str, name: str, parts: int) -> bool:
    """Whether `name` is `host` with that many parts after it (`HOST-TOKEN`, `HOST-PID-TOKEN`).

    A host's name may have hyphens itself.
    """
    return name.rsplit("-", parts)[0] == host
