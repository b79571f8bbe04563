"""What one Redis bears: its CPU time per question, how much idle workers cost it, and how long a question's way is."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from batchfleet.tuning.table_report import Cell, Table, percentile
from benchmarks.resources import cpu_s
from benchmarks.rig import Rig

IDLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Redis with workers that have nothing to do: CPU seconds per second, and connections."""

    busy: float
    connections: int

    @classmethod
    def of(cls, rig: Rig) -> Idle:
        before = cpu_s(rig.pids["redis"])
        time.sleep(IDLE_S)
        busy = (cpu_s(rig.pids["redis"]) - before) / IDLE_S
        return cls(busy, int(rig.client.info("clients")["connected_clients"]))


@dataclass(frozen=True, slots=True)
class RedisLoad:
    """What one run asked of Redis.

    Attributes:
        questions_per_s: Answered.
        busy: CPU seconds per second.
        way_ms: Median and 99th percentile of the time from submission to the record, less the engine's; with more
            questions asked than the engines hold, it includes the wait for a place in one.
    """

    workers: int
    questions_per_s: float
    busy: float
    commands_per_question: float
    idle: Idle
    way_ms: tuple[float, float]

    @property
    def us_per_question(self) -> float:
        """Of CPU time, heartbeats included."""
        return 1e6 * self.busy / self.questions_per_s

    @property
    def full_at_per_s(self) -> float:
        """Questions/s at which one core is full, if a question costs as much then."""
        return self.questions_per_s / max(self.busy, 1e-6)


def way_ms(answers: Path, step_s: float) -> tuple[float, float]:
    """Of the answers of stubs on a clock, each of whose tokens took `step_s` seconds."""
    with answers.open("rb") as lines:
        found = [json.loads(line) for line in lines]
    ways = [1000 * (one["latency_s"] - step_s * one["usage"]["completion_tokens"]) for one in found]
    return percentile(ways, 0.5), percentile(ways, 0.99)


def redis_table(found: Sequence[RedisLoad]) -> Table:
    """Medians by number of workers."""
    columns = (
        "workers", "connections", "busy while all idle", "questions/s", "busy", "CPU us/question", "commands/question",
        "full at, questions/s", "way p50, ms", "way p99, ms",
    )  # fmt: skip
    rows: list[list[Cell]] = []
    for workers in dict.fromkeys(one.workers for one in found):
        same = [one for one in found if one.workers == workers]
        rows.append(
            [
                workers,
                round(median(one.idle.connections for one in same)),
                round(median(one.idle.busy for one in same), 3),
                round(median(one.questions_per_s for one in same)),
                round(median(one.busy for one in same), 2),
                round(median(one.us_per_question for one in same), 1),
                round(median(one.commands_per_question for one in same), 2),
                round(median(one.full_at_per_s for one in same)),
                *(round(median(one.way_ms[place] for one in same), 1) for place in (0, 1)),
            ]
        )
    return Table("The one Redis; medians", columns, rows)
