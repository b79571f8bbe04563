"""`benchmarks profile`: where the microseconds of a question go, in each program and in Redis."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchfleet.settings.schema import Settings
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.table_report import Cell, Report, Table
from benchmarks.redis_stats import CommandCount
from benchmarks.resources import cpu_s
from benchmarks.rig import Rig, for_bench

NOTES = [
    (
        "Microseconds of CPU per question. `own`: in this function, what it calls in C included; "
        "`with callees`: and in what it calls in Python."
    ),
    "Found by samples of CPU time, which cost a few per cent. A worker's figures are those of all workers together.",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at. `top`: functions shown of each program."""

    count: int = 40_000
    batch_size: int = 64
    workers: int = 2
    seed: int = 1
    source: Path | None = None
    top: int = 20


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Send one file through a sampled fleet."""
    own = for_bench(settings, {"model.generator_settings.batch_size": plan.batch_size, "stub.step_s": 0.0})
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        write_questions(folder / "questions.jsonl", plan.count, plan.seed, plan.source)
        commands, redis_cpu_s, rate = _measure(plan, own, folder)
        say(f"{rate:.0f} questions/s while being sampled")
        samples = {
            program: _joined(sorted(folder.glob(f"{program}*.json"))) for program in ("producer", "batcher", "worker")
        }
    tables = [_function_table(program, found, plan) for program, found in samples.items()]
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated"}
    return Report(
        "profile", parameters, [_overview(samples, redis_cpu_s, plan), *tables, _redis_table(commands, plan)], NOTES
    )


def _measure(plan: Plan, settings: Settings, folder: Path) -> tuple[CommandCount, float, float]:
    """Leaves the samples in `folder`. Returns what Redis did, its CPU seconds, and questions/s."""
    arguments = (str(folder / "questions.jsonl"), str(folder / "answers.jsonl"))
    with Rig(settings, plan.workers, profiles=folder) as rig:
        with rig.helper(
            "producer_process", *arguments, rig.url, "--samples", str(folder / "producer.json")
        ) as producer:
            producer.wait_until_ready()
            before, redis_before_s = CommandCount.now(rig.client), cpu_s(rig.pids["redis"])
            producer.go()
            result = producer.result()
            commands, redis_cpu_s = (
                CommandCount.now(rig.client).since(before),
                cpu_s(rig.pids["redis"]) - redis_before_s,
            )
        rig.check()
        rig.stop_services()
    return commands, redis_cpu_s, plan.count / result["elapsed_s"]


def _joined(files: list[Path]) -> dict[str, Any]:
    """Several processes of one program as one."""
    every = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    own, total = (sum((Counter(found[kind]) for found in every), Counter()) for kind in ("own", "total"))
    return {"own": own, "total": total, "cpu_s": sum(found["cpu_s"] for found in every)}


def _overview(samples: dict[str, dict[str, Any]], redis_cpu_s: float, plan: Plan) -> Table:
    rows = [(program, round(1e6 * found["cpu_s"] / plan.count, 1)) for program, found in samples.items()]
    redis_us = round(1e6 * redis_cpu_s / plan.count, 1)
    rows += [("redis", redis_us), ("all", round(sum(used for _, used in rows) + redis_us, 1))]
    return Table("CPU microseconds per question", ("program", "us"), rows)


def _function_table(program: str, found: dict[str, Any], plan: Plan) -> Table:
    each_us = 1e6 * found["cpu_s"] / max(1, found["own"].total()) / plan.count
    rows: list[list[Cell]] = [
        [name, round(each_us * count, 2), round(each_us * found["total"][name], 2)]
        for name, count in found["own"].most_common(plan.top)
    ]
    return Table(f"{program}, us per question", ("function", "own", "with callees"), rows)


def _redis_table(commands: CommandCount, plan: Plan) -> Table:
    by_time = sorted(commands.calls, key=lambda name: -commands.micros[name])
    rows = [
        (name, round(commands.calls[name] / plan.count, 3), round(commands.micros[name] / plan.count, 2))
        for name in by_time[: plan.top]
    ]
    return Table(
        "Redis, by command; that of scripts (evalsha) includes the commands in them",
        ("command", "calls per question", "us per question"),
        rows,
    )
