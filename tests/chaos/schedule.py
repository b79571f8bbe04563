"""Seed -> schedule of faults, as data.

Pure: the same seed gives the same schedule everywhere, and nothing is done yet.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WORKERS = ("worker-1", "worker-2", "worker-3")
BATCHERS = ("batcher-1", "batcher-2")
PRODUCERS = ("producer-1", "producer-2")
REDIS = ("redis",)
UPS = ("up-1",)
"""A `batchfleet up` beside the others; only where a fault has to do with it, as its children are fresh Pythons."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take in a schedule.

    Attributes:
        span_s: Faults begin within this many seconds.
        batch_s, leader_s, heartbeat_s: The fleet's leases.
        questions: Of each producer; enough to keep the workers busy for about `span_s`.
    """

    span_s: float
    batch_s: float
    leader_s: float
    heartbeat_s: float
    questions: int

    @property
    def slowness(self) -> float:
        """Longer leases need longer absences to lapse."""
        return self.batch_s / SHORT.batch_s


SHORT = Pace(span_s=6.0, batch_s=1.5, leader_s=1.0, heartbeat_s=0.3, questions=220)
DEFAULT_LEASES = Pace(span_s=25.0, batch_s=6.0, leader_s=4.0, heartbeat_s=1.0, questions=1800)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        targets: What it can hit.
        seizes: What of the target it needs for itself; two faults that seize the same of one target do not overlap.
        lasts_s: Shortest and longest, in seconds, at the short leases.
        scales: Whether it lasts longer where leases are longer.
        variants: In which ways it may happen.
    """

    targets: tuple[str, ...]
    seizes: str
    lasts_s: tuple[float, float]
    scales: bool = False
    variants: tuple[str, ...] = ("",)


PARTITIONS = ("late", "lost", "deaf")
"""Late: what was sent before or during the partition arrives after it. Lost: connections break at its end.

Deaf: requests arrive, replies do not.
"""

FULLNESS = ("half", "brim")
"""Half: `maxmemory` is half of what is used.

Brim: a little more than is used, which records of small answers then fill.
"""

# A process that was killed is restarted when the fault is over, as a supervisor would. Stops outlast the leases:
# zombies come back.
KINDS = {
    "kill-worker": Kind(WORKERS, "process", (0.2, 1.5)),
    "kill-batcher": Kind(BATCHERS, "process", (0.2, 1.5)),
    "kill-producer": Kind(PRODUCERS, "process", (0.2, 1.0)),
    "kill-redis": Kind(REDIS, "process", (0.0, 2.0), scales=True),
    "term-worker": Kind(WORKERS, "process", (0.2, 1.5)),
    "term-batcher": Kind(BATCHERS, "process", (0.2, 1.5)),
    "term-producer": Kind(PRODUCERS, "process", (0.2, 1.0)),
    "term-redis": Kind(REDIS, "process", (0.3, 3.8), scales=True),
    "stop-worker": Kind(WORKERS, "process", (1.8, 3.2), scales=True),
    "stop-batcher": Kind(BATCHERS, "process", (1.2, 2.5), scales=True),
    "stop-producer": Kind(PRODUCERS, "process", (0.5, 3.0), scales=True),
    "stop-redis": Kind(REDIS, "process", (0.5, 3.8), scales=True),
    "partition-worker": Kind(WORKERS, "link", (0.3, 3.8), scales=True, variants=PARTITIONS),
    "partition-batcher": Kind(BATCHERS, "link", (0.3, 3.0), scales=True, variants=PARTITIONS),
    "partition-producer": Kind(PRODUCERS, "link", (0.3, 3.8), scales=True, variants=PARTITIONS),
    "cut-clients": Kind(REDIS, "process", (0.0, 0.0)),
    "oom-redis": Kind(REDIS, "process", (0.5, 3.0), scales=True, variants=FULLNESS),
    "failover-redis": Kind(REDIS, "process", (0.05, 1.0)),
    "sleep-redis": Kind(REDIS, "process", (0.3, 2.0), scales=True),
    "flush-scripts": Kind(REDIS, "scripts", (0.0, 1.0)),
    "forget-run": Kind(PRODUCERS, "process", (0.5, 1.5)),
    "scale-up": Kind(UPS, "process", (0.5, 2.0)),
    "kill-up": Kind(UPS, "process", (0.2, 1.0)),
    "full-disk": Kind(PRODUCERS, "process", (0.3, 1.5)),
    "wrong-clock": Kind(WORKERS, "clock", (0.0, 0.0), variants=("+60", "-60")),
}

FIXED_SEEDS = (588, 662, 2238, 3180)
"""Schedules that CI runs every time, chosen so that together they hold every kind of fault."""

LASTING = "wrong-clock"
"""Set before the process starts, and never put right."""
BREATH_S = 0.2
"""Least time between two faults that seize the same."""
MOST_TRIES = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `kind` befalls `target`, and is put right `lasts_s` seconds later.

    It begins `at_s` seconds after the producers started.
    """

    kind: str
    target: str
    at_s: float
    lasts_s: float
    variant: str = ""

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.2f} s" if self.lasts_s else ""
        return f"{self.at_s:6.2f} s  {self.kind} {self.target}{lasts}{f' ({self.variant})' if self.variant else ''}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What will befall one fleet, and how that fleet is shaped.

    Attributes:
        faults: In the order in which they begin.
        batch_size, capacity, max_waiting_batches: Settings of the fleet; small, so that much is in every place at every
            time.
    """

    seed: int
    pace: Pace
    batch_size: int
    capacity: int
    max_waiting_batches: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        shape = (
            f"batches of {self.batch_size}, {self.capacity} at once in a worker, at most {self.max_waiting_batches} "
            "batches waiting"
        )
        return "\n".join([f"seed {self.seed}: {shape}", *(f"  {fault}" for fault in self.faults)])


def schedule_for(seed: int, pace: Pace = SHORT, kinds: Sequence[str] = tuple(KINDS)) -> Schedule:
    """The schedule of a seed: 3 to 9 faults of the given kinds, some at the same moment."""
    rng = random.Random(seed)  # noqa: S311 (to be repeated, not to be secret)
    batch_size, capacity, max_waiting_batches = (
        rng.choice((1, 4, 8, 16)),
        rng.choice((12, 16, 24)),
        rng.choice((2, 4, 16)),
    )
    faults = sorted(_faults(rng, pace, kinds), key=lambda fault: (fault.at_s, fault.kind, fault.target))
    return Schedule(seed, pace, batch_size, capacity, max_waiting_batches, tuple(faults))


def _faults(rng: random.Random, pace: Pace, kinds: Sequence[str]) -> Iterator[Fault]:
    if LASTING in kinds and rng.random() < 0.3:
        yield Fault(LASTING, rng.choice(KINDS[LASTING].targets), 0.0, 0.0, rng.choice(KINDS[LASTING].variants))
    timed = [kind for kind in kinds if kind != LASTING]
    chosen: list[Fault] = []
    wanted = rng.randint(3, 9) if timed else 0
    for _ in range(MOST_TRIES):
        if len(chosen) == wanted:
            break
        fault = _fault(rng, pace, rng.choice(timed), chosen)
        if not any(_collide(fault, other) for other in chosen):
            chosen.append(fault)
    yield from chosen


def _fault(rng: random.Random, pace: Pace, name: str, before: Sequence[Fault]) -> Fault:
    kind = KINDS[name]
    # Several at once: what one fault sets in motion, the next one meets.
    together = before and rng.random() < 0.35
    at_s = before[-1].at_s + rng.uniform(0.0, 0.1) if together else rng.uniform(0.2, pace.span_s)
    lasts_s = rng.uniform(*kind.lasts_s) * (pace.slowness if kind.scales else 1.0)
    return Fault(name, rng.choice(kind.targets), round(at_s, 2), round(lasts_s, 2), rng.choice(kind.variants))


def _collide(one: Fault, other: Fault) -> bool:
    same = (one.target, KINDS[one.kind].seizes) == (other.target, KINDS[other.kind].seizes)
    return same and one.at_s < other.ends_s + BREATH_S and other.at_s < one.ends_s + BREATH_S
