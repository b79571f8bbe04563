"""`bench batching`: whether the size of batches matters to an engine that takes its time, and how near a fleet comes to the engine alone."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fleet.bench.questions import write_questions
from fleet.bench.report import Report, Table, from_to, middle
from fleet.bench.rig import BenchFailedError, Helper, Rig, environment, for_bench, write_config
from fleet.settings.schema import Settings

NOTES = [
    "Ideal: as many engines as workers, in processes of their own, without queue or fleet, each given its even share of the questions in one go.",
    "The slowest of them counts. Fleets are measured from the first push to the last line on disk.",
]
IDEAL = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: the ideal and every batch size, in turn, `rounds` times.

    Attributes:
        step_s: Of the stub's clock, in seconds.
        sequences: Of one engine, at once.
        tokens: Length of the shortest and the longest answer.
    """

    count: int = 4000
    batch_sizes: Sequence[int] = (1, 16, 64, 256)
    rounds: int = 3
    workers: int = 2
    seed: int = 1
    source: Path | None = None
    step_s: float = 0.01
    sequences: int = 64
    tokens: tuple[int, int] = (8, 128)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run; `batch_size` 0 is the ideal."""

    batch_size: int
    questions: int
    elapsed_s: float

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement."""
    found: list[Measurement] = []
    stub = {"step_s": plan.step_s, "max_num_seqs": plan.sequences, "min_tokens": plan.tokens[0], "max_tokens": plan.tokens[1]}
    own = for_bench(settings, {f"stub.{name}": value for name, value in stub.items()})
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as folder:
        questions = Path(folder) / "questions.jsonl"
        write_questions(questions, plan.count, plan.seed, plan.source)
        for number in range(plan.rounds):
            for size in (IDEAL, *plan.batch_sizes):
                one = _fleet(questions, size, plan, own) if size else _ideal(questions, plan, own)
                found.append(one)
                say(f"round {number + 1}: {f'batches of {size}' if size else 'ideal'}: {one.rate:.1f}/s in {one.elapsed_s:.2f} s")
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated"}
    return Report("batching", parameters, [_table(plan, found)], [*NOTES, _verdict(plan, found)], [asdict(one) for one in found])


def _ideal(questions: Path, plan: Plan, settings: Settings) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_config(folder, settings)
        engines = [
            stack.enter_context(Helper("fleet.bench.ideal", (str(questions), str(share), str(plan.workers)), environment(settings), folder))
            for share in range(plan.workers)
        ]
        for engine in engines:
            engine.wait_until_ready()
        for engine in engines:
            engine.go()
        results = [engine.result() for engine in engines]
    return _checked(IDEAL, plan, sum(result["answered"] for result in results), max(result["elapsed_s"] for result in results))


def _fleet(questions: Path, batch_size: int, plan: Plan, settings: Settings) -> Measurement:
    own = for_bench(settings, {"model.generator_settings.batch_size": batch_size})
    with Rig(own, plan.workers) as rig, rig.helper("producing", str(questions), str(rig.folder / "answers.jsonl"), rig.url) as producer:
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        rig.check()
    return _checked(batch_size, plan, result["answered"], result["elapsed_s"])


def _checked(batch_size: int, plan: Plan, answered: int, elapsed_s: float) -> Measurement:
    if answered != plan.count:
        msg = f"{answered} of {plan.count} questions were answered"
        raise BenchFailedError(msg)
    return Measurement(batch_size, answered, elapsed_s)


def _table(plan: Plan, found: list[Measurement]) -> Table:
    ideal = median(one.rate for one in found if one.batch_size == IDEAL)
    rows = []
    for size in (IDEAL, *plan.batch_sizes):
        rates = [one.rate for one in found if one.batch_size == size]
        rows.append((f"batches of {size}" if size else "ideal: all at once, no fleet", middle(rates, 1), from_to(rates, 1), middle(rates, 6) / ideal))
    rounded = [(*row[:3], round(row[3], 3)) for row in rows]
    return Table("Answers per second; medians", ("fed", "answers/s", "range", "of the ideal"), rounded)


def _verdict(plan: Plan, found: list[Measurement]) -> str:
    rates = {size: median(one.rate for one in found if one.batch_size == size) for size in (IDEAL, *plan.batch_sizes)}
    fleet = [rates[size] for size in plan.batch_sizes]
    return (
        f"The slowest batch size reaches {min(fleet) / rates[IDEAL]:.3f} of the ideal; between the slowest and the fastest lie "
        f"{100 * (1 - min(fleet) / max(fleet)):.1f} %."
    )
