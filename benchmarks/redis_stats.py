"""What Redis was asked to do, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis


@dataclass(frozen=True, slots=True)
class CommandCount:
    """Redis' own counters at one instant, or the difference of two.

    Attributes:
        calls: By command; those that scripts made count like any other, and the script itself as well.
        micros: Microseconds by command; those of a script include the commands in it.
        reads: How often Redis read from a socket: about the number of round trips, whatever travelled together in a
            pipeline.
        memory_peak_mib: Most memory that Redis ever used for data.
    """

    calls: dict[str, int]
    micros: dict[str, int]
    reads: int
    memory_peak_mib: float

    @classmethod
    def now(cls, client: redis.Redis) -> CommandCount:
        stats: dict[str, dict[str, Any]] = client.info("commandstats")
        every: dict[str, Any] = client.info("everything")
        names = {key.removeprefix("cmdstat_"): value for key, value in stats.items()}
        return cls(
            {name: int(value["calls"]) for name, value in names.items()},
            {name: int(value["usec"]) for name, value in names.items()},
            int(every.get("total_reads_processed", 0)),
            every["used_memory_peak"] / 1024 / 1024,
        )

    def since(self, before: CommandCount) -> CommandCount:
        """What was added, without our own looking."""
        calls = {
            name: count - before.calls.get(name, 0)
            for name, count in self.calls.items()
            if name not in {"info", "ping"}
        }
        micros = {name: used - before.micros.get(name, 0) for name, used in self.micros.items()}
        used = {name: count for name, count in calls.items() if count > 0}
        return CommandCount(
            used, {name: micros[name] for name in used}, self.reads - before.reads, self.memory_peak_mib
        )

    @property
    def total(self) -> int:
        return sum(self.calls.values())
