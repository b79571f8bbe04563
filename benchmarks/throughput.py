"""`benchmarks throughput`: questions/s of the whole path, with an engine that costs nothing.

The path is from the first push to the last line on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.table_report import Cell, Report, Table, from_to, middle
from benchmarks.chart import Lines
from benchmarks.redis_stats import CommandCount
from benchmarks.resources import MemoryWatch, cpu_s
from benchmarks.rig import Rig, for_bench

NOTES = [
    (
        "CPU: seconds per 1 000 questions, user and system, from the first push to the last line on disk. "
        "`workers`: all of them together."
    ),
    (
        "Cores: CPU seconds of the fleet per second. "
        "Far below the machine's cores, others were using it too, or the fleet was waiting."
    ),
    "`checking` is the producer's first pass over the file, which is over before the first push, and not in the sum.",
    (
        "Commands: as Redis counts them, scripts and what is in them. "
        "Reads: how often Redis read from a socket, about the number of round trips."
    ),
    (
        "Memory: resident MiB, shared pages included, in the last round: at a quarter of the time, at the end, and the "
        "most. `workers`: the largest."
    ),
]
MOST_POINTS = 300
PROGRAMS = ("producer", "batcher", "workers", "redis")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: every count of questions with every batch size, in turn, `rounds` times."""

    counts: Sequence[int] = (20_000,)
    batch_sizes: Sequence[int] = (1, 16, 64, 256)
    rounds: int = 3
    workers: int = 2
    seed: int = 1
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a file through a fresh fleet.

    Attributes:
        cpu_s: By program, of the whole run; `checking` besides.
        commands, reads: Of Redis, for the whole run.
        memory_mib: By program: at a quarter of the time, at the end, the most.
        redis_data_mib: Most memory that Redis used for data.
        memory_over_time: (seconds, MiB by program), a few hundred of them.
    """

    questions: int
    batch_size: int
    elapsed_s: float
    cpu_s: dict[str, float]
    commands: int
    reads: int
    memory_mib: dict[str, tuple[float, float, float]]
    redis_data_mib: float
    memory_over_time: list[tuple[float, dict[str, float]]]

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s

    def cpu_per_1000_s(self, *programs: str) -> float:
        return 1000 * sum(self.cpu_s[name] for name in programs or PROGRAMS) / self.questions


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement."""
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as folder:
        files = {count: Path(folder) / f"{count}.jsonl" for count in plan.counts}
        for count, file in files.items():
            write_questions(file, count, plan.seed, plan.source)
        for number in range(plan.rounds):
            for count, file in files.items():
                for batch_size in plan.batch_sizes:
                    one = measure(file, count, batch_size, plan.workers, settings)
                    found.append(one)
                    figures = f"{one.rate:.0f}/s, {one.cpu_per_1000_s():.3f} CPU s per 1 000"
                    say(f"round {number + 1}: {count} questions, batches of {batch_size}: {figures}")
    parameters = {
        "workers": plan.workers,
        "rounds": plan.rounds,
        "seed": plan.seed,
        "questions": plan.source.name if plan.source else "generated",
    }
    return Report("throughput", parameters, _tables(plan, found), NOTES, [asdict(one) for one in found], _chart(found))


def measure(questions: Path, count: int, batch_size: int, workers: int, settings: Settings) -> Measurement:
    """Send a file through a fresh fleet, which has started and registered before the first push."""
    own = for_bench(settings, {"model.generator_settings.batch_size": batch_size, "stub.step_s": 0.0})
    with (
        Rig(own, workers) as rig,
        rig.helper("producer_process", str(questions), str(rig.folder / "answers.jsonl"), rig.url) as producer,
    ):
        producer.wait_until_ready()
        pids = {**rig.pids, "producer": producer.pid}
        commands = CommandCount.now(rig.client)
        before = {name: cpu_s(pid) for name, pid in rig.pids.items()}
        with MemoryWatch(pids) as memory:
            producer.go()
            result = producer.result()
        after = {name: cpu_s(pid) for name, pid in rig.pids.items()}
        commands = CommandCount.now(rig.client).since(commands)
        rig.check()
    if result["answered"] != count:
        raise BenchFailedError(f"{result['answered']} of {count} questions were answered")
    used = _by_program({name: after[name] - before[name] for name in before}, sum) | {
        "producer": result["cpu_s"],
        "checking": result["checking_cpu_s"],
    }
    quarter, end, most = (_by_program(taken, max) for taken in (memory.at(0.25), memory.at(1.0), memory.peak()))
    by_program = {name: (quarter[name], end[name], most[name]) for name in PROGRAMS}
    return Measurement(
        count,
        batch_size,
        result["elapsed_s"],
        used,
        commands.total,
        commands.reads,
        by_program,
        commands.memory_peak_mib,
        _thinned(memory),
    )


def _thinned(memory: MemoryWatch) -> list[tuple[float, dict[str, float]]]:
    every = max(1, len(memory.samples) // MOST_POINTS)
    return [(round(elapsed_s, 2), _by_program(taken, max)) for elapsed_s, taken in memory.samples[::every]]


def _chart(found: Sequence[Measurement]) -> Lines:
    """Memory in the longest run."""
    longest = max(found, key=lambda one: (one.questions, one.elapsed_s))
    lines = {name: [(elapsed_s, taken[name]) for elapsed_s, taken in longest.memory_over_time] for name in PROGRAMS}
    return Lines(
        f"Resident memory during {longest.questions:,} questions".replace(",", " "), "seconds", "MiB", dict(lines)
    )


def _by_program(by_process: dict[str, float], of_workers: Callable[[list[float]], float]) -> dict[str, float]:
    """One figure for all workers, which are called `worker-1` and so on."""
    workers = [value for name, value in by_process.items() if name.startswith("worker-")]
    return {name: value for name, value in by_process.items() if not name.startswith("worker-")} | {
        "workers": of_workers(workers)
    }


def _tables(plan: Plan, found: list[Measurement]) -> list[Table]:
    cells = [
        [one for one in found if (one.questions, one.batch_size) == (count, size)]
        for count in plan.counts
        for size in plan.batch_sizes
    ]
    rates = (
        "questions",
        "batch",
        "questions/s",
        "range",
        "cores",
        "CPU s/1 000",
        *PROGRAMS,
        "checking",
        "commands",
        "reads",
    )
    memory = (
        "questions",
        "batch",
        *(f"{name} {when}" for name in PROGRAMS for when in ("25 %", "end", "most")),
        "Redis data",
    )
    return [
        Table(
            "Rate, CPU seconds per 1 000 questions, and commands per question; medians",
            rates,
            [_rate_row(same) for same in cells],
        ),
        Table("Resident memory, MiB", memory, [_memory_row(same[-1]) for same in cells]),
    ]


def _rate_row(same: list[Measurement]) -> list[Cell]:
    one = same[0]
    cpu = [
        middle([found.cpu_per_1000_s(*names) for found in same])
        for names in ((), *((name,) for name in PROGRAMS), ("checking",))
    ]
    rate = [found.rate for found in same]
    cores = middle([found.rate * found.cpu_per_1000_s() / 1000 for found in same], 2)
    commands = middle([found.commands / found.questions for found in same], 2)
    return [
        one.questions,
        one.batch_size,
        middle(rate, 0),
        from_to(rate),
        cores,
        *cpu,
        commands,
        middle([f.reads / f.questions for f in same]),
    ]


def _memory_row(one: Measurement) -> list[Cell]:
    figures = [round(value) for name in PROGRAMS for value in one.memory_mib[name]]
    return [one.questions, one.batch_size, *figures, round(one.redis_data_mib)]
