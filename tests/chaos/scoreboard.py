"""The figures of many schedules, as JSON and as a table; and those of several calls as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.driver import Outcome
from tests.chaos.schedule import Pace

SUMS = ("schedules", "questions", "lost", "unfinished", "duplicated", "wrong", "forgotten", "regenerated", "looks")
SPREADS = {"recovery_s": "recoveries_s", "schedule_s": "schedules_s", "cpu_s": "cpus_s"}
"""What is shown of a list of seconds, and that list."""
SAME = ("leases", "network", "redis")
"""What has to be the same in scoreboards that are added up."""


@dataclass(slots=True)
class Scoreboard:
    """What all schedules of one call came to.

    Attributes:
        network: How processes were cut off; one of `NETWORKS`.
        redis: The server and its version.
    """

    pace: Pace
    command: str
    network: str
    redis: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        return sorted(
            (outcome for outcome in self.outcomes if outcome.findings), key=lambda outcome: outcome.schedule.seed
        )

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        figures: dict[str, Any] = {
            "command": self.command,
            "network": self.network,
            "redis": self.redis,
            "leases": {
                "batch_s": self.pace.batch_s,
                "leader_s": self.pace.leader_s,
                "heartbeat_s": self.pace.heartbeat_s,
            },
            "schedules": len(self.outcomes),
            "seeds": sorted(outcome.schedule.seed for outcome in self.outcomes),
            "failed_seeds": [outcome.schedule.seed for outcome in self.failed],
            "faults": _counted(outcome.befell for outcome in self.outcomes),
            "questions": sum(outcome.questions for outcome in self.outcomes),
            "lost": sum(outcome.verdict.lost for outcome in self.outcomes),
            "unfinished": sum(outcome.verdict.unfinished for outcome in self.outcomes),
            "duplicated": sum(outcome.verdict.duplicated for outcome in self.outcomes),
            "wrong": sum(outcome.verdict.wrong for outcome in self.outcomes),
            "forgotten": sum(outcome.forgotten for outcome in self.outcomes),
            "regenerated": sum(outcome.verdict.regenerated for outcome in self.outcomes),
            "looks": sum(outcome.looks for outcome in self.outcomes),
            "recoveries_s": _rounded(took_s for outcome in self.outcomes for took_s in outcome.recovered_s),
            "schedules_s": _rounded(outcome.elapsed_s for outcome in self.outcomes),
            "cpus_s": _rounded(outcome.cpu_s for outcome in self.outcomes),
        }
        return figures | {name: spread(figures[values]) for name, values in SPREADS.items()}


def added(boards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One scoreboard of several, as `Scoreboard.as_dict` gives them.

    Raises:
        ValueError: They are not of one kind, or a seed is in two of them.
    """
    for name in SAME:
        if len({str(board[name]) for board in boards}) > 1:
            raise ValueError(
                f"these scoreboards differ in {name}: {', '.join(sorted({str(board[name]) for board in boards}))}"
            )
    seeds = sorted(seed for board in boards for seed in board["seeds"])
    if twice := sorted(seed for seed, count in Counter(seeds).items() if count > 1):
        raise ValueError(f"these seeds are in more than one scoreboard: {twice[:10]}")
    figures: dict[str, Any] = {"command": "; ".join(board["command"] for board in boards), "seeds": seeds}
    figures |= {name: boards[0][name] for name in SAME}
    figures |= {name: sum(board.get(name, 0) for board in boards) for name in SUMS}
    figures["failed_seeds"] = sorted(seed for board in boards for seed in board["failed_seeds"])
    figures["faults"] = _counted(board["faults"] for board in boards)
    for name, values in SPREADS.items():
        figures[values] = _rounded(value for board in boards for value in board[values])
        figures[name] = spread(figures[values])
    return figures


def as_text(figures: Mapping[str, Any]) -> str:
    """A scoreboard for people."""
    rows = [(name, figures[name]) for name in SUMS]
    rows += [(f"{what} {name}", value) for what in SPREADS for name, value in figures[what].items()]
    rows += [
        ("faults", sum(figures["faults"].values())),
        *((f"  {kind}", count) for kind, count in figures["faults"].items()),
    ]
    rows += [
        ("failed schedules", len(figures["failed_seeds"])),
        ("network", figures["network"]),
        ("redis", figures["redis"]),
    ]
    return "\n".join(f"{name:<26}{value:>16}" for name, value in rows)


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """How many, and the middle, the 95th percentile and the largest of them."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    p50, p95 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {"count": len(ordered), "p50": round(p50, 2), "p95": round(p95, 2), "max": round(ordered[-1], 2)}


def told(outcome: Outcome) -> str:
    """What went wrong under one schedule, and how to see it again."""
    found = "\n".join(f"  FOUND {finding}" for finding in outcome.findings)
    return (
        f"{outcome.schedule}\n{found}\n  logs: {outcome.folder}\n  again: scripts/chaos --seeds 1 --from "
        f"{outcome.schedule.seed}"
    )


def _counted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _rounded(values: Iterable[float]) -> list[float]:
    return sorted(round(value, 2) for value in values)
