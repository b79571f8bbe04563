"""The figures of many schedules, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.driving import Outcome
from tests.chaos.schedule import Pace


@dataclass(slots=True)
class Scoreboard:
    """What all schedules together came to."""

    pace: Pace
    command: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        return sorted((outcome for outcome in self.outcomes if outcome.findings), key=lambda outcome: outcome.schedule.seed)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        seeds = sorted(outcome.schedule.seed for outcome in self.outcomes)
        recoveries_s = sorted(round(took_s, 2) for outcome in self.outcomes for took_s in outcome.recovered_s)
        return {
            "command": self.command,
            "leases": {"batch_s": self.pace.batch_s, "leader_s": self.pace.leader_s, "heartbeat_s": self.pace.heartbeat_s},
            "schedules": len(self.outcomes),
            "seeds": seeds,
            "failed_seeds": [outcome.schedule.seed for outcome in self.failed],
            "faults": dict(sorted(sum((outcome.befell for outcome in self.outcomes), Counter[str]()).items())),
            "questions": sum(outcome.questions for outcome in self.outcomes),
            "lost": sum(outcome.verdict.lost for outcome in self.outcomes),
            "duplicated": sum(outcome.verdict.duplicated for outcome in self.outcomes),
            "regenerated": sum(outcome.verdict.regenerated for outcome in self.outcomes),
            "looks": sum(outcome.looks for outcome in self.outcomes),
            "recovery_s": spread(recoveries_s),
            "recoveries_s": recoveries_s,
            "schedule_s": spread([outcome.elapsed_s for outcome in self.outcomes]),
            "cpu_s": spread([outcome.cpu_s for outcome in self.outcomes]),
        }

    def as_text(self) -> str:
        """For people."""
        figures = self.as_dict()
        rows = [(name, figures[name]) for name in ("schedules", "questions", "lost", "duplicated", "regenerated", "looks")]
        rows += [(f"{what} {name}", value) for what in ("recovery_s", "schedule_s", "cpu_s") for name, value in figures[what].items()]
        rows += [("faults", sum(figures["faults"].values())), *((f"  {kind}", count) for kind, count in figures["faults"].items())]
        rows.append(("failed schedules", len(figures["failed_seeds"])))
        table = [f"{name:<22}{value:>12}" for name, value in rows]
        return "\n".join([*table, *(told(outcome) for outcome in self.failed)])


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
    return f"{outcome.schedule}\n{found}\n  logs: {outcome.folder}\n  again: scripts/chaos --seeds 1 --from {outcome.schedule.seed}"
