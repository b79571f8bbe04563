"""Figures of a fleet in words, as the tables of `status` and the gateway's page have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from batchfleet.humanize import GIB, duration, gib, rate
from batchfleet.status.model import GpuStatus, WorkerStatus

AT_WORK = frozenset({"running", "waiting", "draining"})
"""States of workers that hold questions."""


def room_of(workers: Iterable[WorkerStatus]) -> int:
    """How many questions they may hold together."""
    return sum(worker.capacity for worker in workers if worker.state in AT_WORK)


def failures_of(workers: Iterable[WorkerStatus]) -> Counter[str]:
    """By kind, as the workers that report count them."""
    kinds: Counter[str] = Counter()
    for worker in workers:
        kinds.update(worker.failures)
    return kinds


def per_s(number: float, none: str = "0/s") -> str:
    """`22.4/s`; `none` in place of nothing."""
    return rate(number, "").replace(" /", "/") if number else none


def state_of(worker: WorkerStatus) -> str:
    """What it does, and what it waits for or how long it has been idle."""
    if worker.waits_for:
        return f"{worker.state}: {worker.waits_for}"
    return f"{worker.state}, idle {duration(worker.idle_s)}" if worker.idle_s >= 1 else worker.state


def busy(use: Sequence[GpuStatus], unknown: str) -> str:
    """How busy the GPUs of a worker are on average."""
    return f"{sum(one.busy_percent for one in use) / len(use):.0f}%" if use else unknown


def memory(use: Sequence[GpuStatus], unknown: str) -> str:
    """What is used of the memory of a worker's GPUs."""
    used = sum(one.memory_used_bytes for one in use) / GIB
    return f"{used:.1f} of {gib(sum(one.memory_bytes for one in use))}" if use else unknown
