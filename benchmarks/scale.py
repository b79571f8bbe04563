"""`benchmarks scale`: how many workers one Redis and one batcher can keep busy, and what gives out first."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning import feed
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.table_report import Cell, Report, Table, from_to, middle
from benchmarks.chart import Lines
from benchmarks.one_redis import Idle, RedisLoad, redis_table, way_ms
from benchmarks.redis_stats import CommandCount
from benchmarks.resources import cpu_s
from benchmarks.rig import READY_S, Rig, for_bench

NOTES = [
    "Ideal: so many engines without a fleet, each given its share of the questions at once, on an exact clock.",
    (
        "Fleets are measured in real time, from the first push to the last line on disk, "
        "so the time to fill and to empty all engines counts."
    ),
    (
        "Workers are simulated: each has its engine (a step clock), leases and heartbeats; several share a process. "
        "`workers` is their CPU together."
    ),
    "A slower clock (--step-s) lets the same machine bear more of them.",
    (
        "Busy: CPU seconds per second; "
        "producer, batcher and Redis are single-threaded each, so 1.00 is all that one of them can do."
    ),
]
ROOM_BYTES = 4 * 2**30
SERIAL = ("producer", "batcher", "redis")
ADVICE = {
    "producer": "split the file and start a producer for each part (`submit` with a --run each): they share the fleet",
    "batcher": (
        "raise batch_size: most of its work is per batch. "
        "After that, give half of the workers a fleet of their own (redis.namespace)"
    ),
    "redis": (
        "raise batch_size and put Redis on a faster core. After that, give half of the workers a Redis of their own"
    ),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: every number of workers in turn, `rounds` times.

    Attributes:
        per_worker: Questions in a run for each worker: enough that filling and emptying the engines does not decide.
        processes: That simulate the workers.
        ahead: Questions asked ahead, in per cent of what all engines work on at once: below 100, none waits for an
            engine. 0 for all at once.
    """

    workers: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    per_worker: int = 2400
    processes: int = 2
    ahead: int = 0
    batch_size: int = 16
    rounds: int = 1
    seed: int = 1
    source: Path | None = None
    step_s: float = 0.025
    sequences: int = 128
    tokens: tuple[int, int] = (8, 128)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run.

    Attributes:
        ideal_s: What the engines by themselves would have taken.
        fill: How full the batches were, 0 to 1.
        cpu_s: By program.
    """

    workers: int
    questions: int
    elapsed_s: float
    ideal_s: float
    fill: float
    cpu_s: dict[str, float]
    redis: RedisLoad

    @property
    def efficiency(self) -> float:
        return self.ideal_s / self.elapsed_s

    def busy(self, program: str) -> float:
        return self.cpu_s[program] / self.elapsed_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement."""
    stub = {
        "step_s": plan.step_s,
        "max_num_seqs": plan.sequences,
        "min_tokens": plan.tokens[0],
        "max_tokens": plan.tokens[1],
    }
    changes = {
        "model.generator_settings.batch_size": plan.batch_size,
        **{f"stub.{name}": value for name, value in stub.items()},
    }
    own = for_bench(settings, changes)
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as folder:
        questions = Path(folder) / "questions.jsonl"
        for number in range(plan.rounds):
            for workers in plan.workers:
                write_questions(questions, workers * plan.per_worker, plan.seed, plan.source)
                ideal_s = _ideal_s(questions, workers, own)
                found.append(_measure(questions, workers, ideal_s, plan, _with_room(plan, workers, own)))
                one = found[-1]
                say(
                    f"round {number + 1}: {workers} workers: {one.efficiency:.3f} of the ideal, "
                    f"{one.questions / one.elapsed_s:.0f}/s"
                )
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated"}
    return Report(
        "scale",
        parameters,
        [_table(found), redis_table([one.redis for one in found])],
        [*NOTES, _verdict(found)],
        [asdict(one) for one in found],
        _chart(found),
    )


def _with_room(plan: Plan, workers: int, settings: Settings) -> Settings:
    """Bounds that let one run fill so many workers, or ask as far ahead as planned."""
    engines = workers * plan.sequences
    window = engines * plan.ahead // 100 if plan.ahead else max(settings.limits.run_window, 3 * engines)
    pending = max(settings.limits.max_pending_questions, 2 * window)
    room = {"run_window": max(1, window), "max_pending_questions": pending, "max_pending_bytes": ROOM_BYTES}
    return with_changes(settings, {f"limits.{name}": value for name, value in room.items()})


def _ideal_s(path: Path, workers: int, settings: Settings) -> float:
    questions = feed.read_all(path, "stub")
    return mean(feed.stub_takes_s(feed.all_at_once, questions[share::workers], settings) for share in range(workers))


def _measure(questions: Path, workers: int, ideal_s: float, plan: Plan, settings: Settings) -> Measurement:
    with (
        Rig(settings, workers, simulate_in=plan.processes, ready_s=READY_S + workers) as rig,
        rig.helper("producer_process", str(questions), str(rig.folder / "answers.jsonl"), rig.url) as producer,
    ):
        producer.wait_until_ready()
        idle = Idle.of(rig)
        commands = CommandCount.now(rig.client)
        before = {name: cpu_s(pid) for name, pid in rig.pids.items()}
        producer.go()
        result = producer.result()
        used = {name: cpu_s(pid) - before[name] for name, pid in rig.pids.items()}
        commands = CommandCount.now(rig.client).since(commands)
        fill = _fill(rig, plan.batch_size)
        way = way_ms(rig.folder / "answers.jsonl", plan.step_s)
        rig.check()
    if result["answered"] != workers * plan.per_worker:
        raise BenchFailedError(f"{result['answered']} of {workers * plan.per_worker} questions were answered")
    by_program = {
        "producer": result["cpu_s"],
        "batcher": used["batcher"],
        "redis": used["redis"],
        "workers": sum(value for name, value in used.items() if name.startswith("worker-")),
    }
    count, took_s = workers * plan.per_worker, result["elapsed_s"]
    redis = RedisLoad(workers, count / took_s, used["redis"] / took_s, commands.total / count, idle, way)
    return Measurement(workers, count, took_s, ideal_s, fill, by_program, redis)


def _fill(rig: Rig, batch_size: int) -> float:
    """As the batcher reported it last, about a second ago."""
    reports = [json.loads(report) for report in rig.client.hvals(rig.keys.batchers)]
    batches = sum(report["batches"] for report in reports)
    return sum(report["questions"] for report in reports) / (batches * batch_size) if batches else 0.0


def _table(found: Sequence[Measurement]) -> Table:
    columns = (
        "workers",
        "questions/s",
        "of the ideal",
        "range",
        "batch fill",
        *(f"{name} busy" for name in (*SERIAL, "workers")),
    )
    rows = []
    for workers in dict.fromkeys(one.workers for one in found):
        same = [one for one in found if one.workers == workers]
        shares = [one.efficiency for one in same]
        row: list[Cell] = [
            workers,
            middle([one.questions / one.elapsed_s for one in same], 0),
            middle(shares),
            from_to(shares, 3),
        ]
        row += [
            middle([one.fill for one in same], 2),
            *(middle([one.busy(name) for one in same], 2) for name in (*SERIAL, "workers")),
        ]
        rows.append(row)
    return Table("Against the ideal; medians", columns, rows)


def _verdict(found: Sequence[Measurement]) -> str:
    most = max(one.workers for one in found)
    largest = [one for one in found if one.workers == most]
    busy = {name: median(one.busy(name) for one in largest) for name in SERIAL}
    first = max(busy, key=lambda name: busy[name])
    rate = median(one.questions / one.elapsed_s for one in largest)
    reach = most / max(busy[first], 1e-6)
    return (
        f"What gives out first: the {first}, {busy[first]:.2f} of a core with {most} workers at {rate:.0f} "
        "questions/s. If its work grows with the "
        f"questions, it is full at about {rate / max(busy[first], 1e-6):.0f}/s, which is {reach:.0f} such workers. "
        f"Then: {ADVICE[first]}."
    )


def _chart(found: Sequence[Measurement]) -> Lines:
    numbers = sorted({one.workers for one in found})

    def line(value: Callable[[Measurement], float]) -> list[tuple[float, float]]:
        return [(workers, median(value(one) for one in found if one.workers == workers)) for workers in numbers]

    lines = {"of the ideal": line(lambda one: one.efficiency), "batch fill": line(lambda one: one.fill)}
    for name in SERIAL:
        lines[f"{name} busy"] = line(lambda one, name=name: one.busy(name))  # type: ignore[misc]  # mypy infers no type for a lambda's default
    return Lines("Workers on one Redis and one batcher", "simulated workers", "share", lines, log_x=True)
