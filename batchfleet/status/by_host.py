"""The fleet by the hosts that it runs on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from batchfleet.humanize import MINUTE_S, count, duration, plural
from batchfleet.status.figures import per_s, room_of
from batchfleet.status.model import BatcherStatus, FleetStatus, HostStatus, VanishedStatus, WorkerStatus

CLOCK_S = 5.0
"""A clock that is wrong by less does not matter; how long a message was on its way counts into what is measured."""


@dataclass(slots=True)
class Host:
    """One host, or one container: what calls itself by one name.

    Attributes:
        ups: Of `batchfleet up`; usually one.
        vanished: Who stopped reporting there within the last day.
    """

    name: str
    workers: list[WorkerStatus] = field(default_factory=list)
    batchers: list[BatcherStatus] = field(default_factory=list)
    ups: list[HostStatus] = field(default_factory=list)
    vanished: list[VanishedStatus] = field(default_factory=list)

    @property
    def has_vanished(self) -> bool:
        """Whether all that reported from there has stopped."""
        return bool(self.vanished) and not (self.workers or self.batchers or self.ups)

    @property
    def vanished_s(self) -> float:
        """How long ago the last report came."""
        return min(one.ago_s for one in self.vanished)

    @property
    def clock_ahead_s(self) -> float:
        """By how much its clock is ahead of Redis', as most of its programs see it."""
        found = [one.clock_ahead_s for one in self.workers]
        found += [*(one.clock_ahead_s for one in self.batchers), *(one.clock_ahead_s for one in self.ups)]
        return median(found or [0.0])

    @property
    def clock_is_wrong(self) -> bool:
        return abs(self.clock_ahead_s) >= CLOCK_S

    def held(self) -> str:
        """What a host that vanished had: `4 workers with 512 questions in flight and 8 GPUs`."""
        # What went with it, and not long before.
        latest = [one for one in self.vanished if one.ago_s < self.vanished_s + MINUTE_S and one.kind == "worker"]
        questions, gpus = sum(one.in_flight for one in latest), sum(one.gpus for one in latest)
        parts = [f"{plural(questions, 'question')} in flight", *([plural(gpus, "GPU")] if gpus else [])]
        return f"{plural(len(latest), 'worker')} with {' and '.join(parts)}" if latest else "no worker"


def by_host(status: FleetStatus) -> list[Host]:
    """Those that vanished first, then by name."""
    hosts: dict[str, Host] = {}

    def at(name: str) -> Host:
        return hosts.setdefault(name, Host(name))

    for worker in status.workers:
        at(worker.host).workers.append(worker)
    for batcher in status.batchers:
        at(batcher.host).batchers.append(batcher)
    for up in status.hosts:
        at(up.host).ups.append(up)
    for one in status.vanished:
        at(one.host).vanished.append(one)
    return sorted(hosts.values(), key=lambda host: (not host.has_vanished, host.name))


def are_worth_a_table(hosts: list[Host]) -> bool:
    """Whether hosts say more than workers do."""
    return len(hosts) > 1 or any(host.has_vanished or host.clock_is_wrong for host in hosts)


def cells(host: Host, *, clocks: bool) -> dict[str, str]:
    """What the tables say of it, by heading; `clocks`: whether any is wrong."""
    workers = host.workers
    states = Counter(worker.state for worker in workers)
    does = [f"{number} {state}" for state, number in states.most_common()]
    does += sorted(f"batcher {batcher.state}" for batcher in host.batchers)
    here = ", ".join(does) or "no worker"
    gone = f"gone for {duration(host.vanished_s)}, with {host.held()}" if host.has_vanished else ""
    clock = "right" if not host.clock_is_wrong else shift(host.clock_ahead_s)
    return {
        "host": host.name,
        "state": gone or here,
        "in flight": f"{count(sum(one.in_flight for one in workers))} of {count(room_of(workers))}" if workers else "-",
        "answers": per_s(sum(one.answers_per_s for one in workers), "-"),
        "tokens": per_s(sum(one.tokens_per_s for one in workers), "-"),
        "GPUs": str(sum(len(one.gpus) for one in workers)) if workers else "-",
        **({"clock": "-" if host.has_vanished else clock} if clocks else {}),
    }


def shift(ahead_s: float) -> str:
    """`1 h 00 min ahead`."""
    return f"{duration(abs(ahead_s))} {'ahead' if ahead_s > 0 else 'behind'}"
