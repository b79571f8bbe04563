"""How many workers a fleet should have: a pure decision, from what waits, what a worker does, and what a boot costs.

An engine pays for its boot when the backlog lasts longer than a boot. Going down takes an idle time, so that a fleet
between two bursts does not boot for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from batchfleet.status.model import HostStatus

MOST_WORKERS = 1024
"""Of one host."""


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """From `least` to `most` workers, both included; a fixed number is a range of one."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`N` or `MIN:MAX`.

        Raises:
            ValueError: It is neither, MIN is above MAX, or MAX above `MOST_WORKERS`.
        """
        first, colon, last = text.partition(":")
        ends = (first, last if colon else first)
        # A number of 5 000 digits is none.
        if not all(end.isascii() and end.isdigit() and len(end) <= len(str(MOST_WORKERS)) + 1 for end in ends):
            raise ValueError(f"{text[:40]!r} is neither a number of workers nor a range of them, MIN:MAX")
        least, most = map(int, ends)
        if least > most:
            raise ValueError(f"{text!r}: MIN is above MAX")
        if most > MOST_WORKERS:
            raise ValueError(f"{most} workers on one host; {MOST_WORKERS} is the most")
        return cls(least, most)

    def __str__(self) -> str:
        return str(self.most) if self.is_fixed else f"{self.least}:{self.most}"

    @property
    def is_fixed(self) -> bool:
        return self.least == self.most

    def clamp(self, workers: int) -> int:
        return max(self.least, min(workers, self.most))

    def at_most(self, workers: int) -> WorkerRange:
        """The same with a lower upper end, which takes the lower end along."""
        return WorkerRange(max(0, min(self.least, workers)), max(0, min(self.most, workers)))


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, and what a worker can do.

    Attributes:
        unanswered: Questions of the model that have no record yet, those that are still to be sent included.
        capacity: Questions that a worker keeps in flight; 0: not known yet.
        per_s: Questions that a busy worker answers in a second; 0.0: not known yet.
        boot_s: How long an engine boots; 0.0: not known yet.
    """

    unanswered: int
    capacity: int = 0
    per_s: float = 0.0
    boot_s: float = 0.0


def needed_workers(load: Load) -> int:
    """How many workers are worth having for that load, whoever they are and those that run included.

    One for any question at all. More only as far as each has its capacity to fill, and as the backlog lasts longer than
    a boot with so many of them; before an engine was measured, the capacity alone decides.
    """
    if load.unanswered <= 0:
        return 0
    if not load.capacity:
        return 1
    filled = math.ceil(load.unanswered / load.capacity)
    per_boot = load.per_s * load.boot_s
    paid = math.floor(load.unanswered / per_boot) if per_boot > 0 else filled
    return max(1, min(filled, paid))


def needed_here(needed: int, hosts: Sequence[HostStatus], name: str, model: str) -> int:
    """What one host contributes where several serve a model.

    Hosts with a fixed number of workers come first, then the others in the order of their names, each with as many as
    it may have. Each host reckons for itself and comes to the same: they do not all start workers for one backlog.
    """
    others = [host for host in hosts if host.model == model and host.name != name]
    return max(0, needed - sum(host.most for host in others if host.least == host.most or host.name < name))


@dataclass(frozen=True, slots=True)
class Scale:
    """How many workers are wanted, and since when fewer would do.

    Attributes:
        wanted: Workers to have.
        lower_since_s: From when on fewer were needed at every look; None if they are needed.
        highest: The most that were needed since then.
    """

    wanted: int
    lower_since_s: float | None = None
    highest: int = 0

    def after(self, needed: int, now_s: float, idle_s: float) -> Scale:
        """Up at once; down, to the most that were needed meanwhile, once fewer have done for `idle_s` seconds."""
        if needed >= self.wanted:
            return Scale(needed)
        if self.lower_since_s is None:
            return replace(self, lower_since_s=now_s, highest=needed)
        highest = max(needed, self.highest)
        if now_s - self.lower_since_s < idle_s:
            return replace(self, highest=highest)
        return Scale(highest)
