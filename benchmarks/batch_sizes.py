"""`benchmarks batching`: ways to feed an engine that takes its time.

It tells how near a fleet comes to the best of them at every batch size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median

from batchfleet.settings.schema import Settings
from batchfleet.tuning import feed
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.table_report import Report, Table, from_to, middle
from benchmarks.chart import Lines
from benchmarks.rig import Rig, for_bench
from wire.messages import Question

NOTES = [
    (
        "Ideal: as many engines as workers, without queue or fleet, "
        "each given its even share of the questions at once, on an exact clock."
    ),
    "Fleets are measured in real time, from the first push to the last line on disk.",
    (
        "The engine is the stub, whose step takes as long with one sequence as with all: "
        "what a way to feed it leaves idle is lost in full."
    ),
    (
        "Ways to feed are computed, not timed: the same stub on a clock that jumps. `whole`: a batch is awaited whole "
        "before another takes its place."
    ),
]
OVERLAPPED = 8
SLOW = 500
"""Questions that each way to feed is shown with: one at a time takes hours of the clock for thousands."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: a fleet at every batch size, in turn, `rounds` times.

    Attributes:
        fed_by: Batch sizes of the ways to feed.
        step_s: Of the stub's clock, in seconds.
        sequences: Of one engine, at once.
        tokens: Length of the shortest and the longest answer.
    """

    count: int = 4000
    batch_sizes: Sequence[int] = (1, 16, 64, 256)
    fed_by: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    rounds: int = 3
    workers: int = 2
    seed: int = 1
    source: Path | None = None
    step_s: float = 0.01
    sequences: int = 64
    tokens: tuple[int, int] = (8, 128)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a fleet."""

    batch_size: int
    questions: int
    elapsed_s: float

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Fed:
    """Answers/s of all engines together, for one batch size."""

    size: int
    one_at_a_time: float
    overlapped: float
    by_capacity: float


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement."""
    found: list[Measurement] = []
    stub = {
        "step_s": plan.step_s,
        "max_num_seqs": plan.sequences,
        "min_tokens": plan.tokens[0],
        "max_tokens": plan.tokens[1],
    }
    own = for_bench(settings, {f"stub.{name}": value for name, value in stub.items()})
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as folder:
        path = Path(folder) / "questions.jsonl"
        write_questions(path, plan.count, plan.seed, plan.source)
        questions = feed.read_all(path, "stub")
        ideal = plan.count / max(
            feed.stub_takes_s(feed.all_at_once, questions[i :: plan.workers], own) for i in range(plan.workers)
        )
        fed = [_fed(size, questions, plan, own) for size in plan.fed_by]
        say(f"ideal: {ideal:.1f}/s")
        for number in range(plan.rounds):
            for size in plan.batch_sizes:
                one = _fleet(path, size, plan, own)
                found.append(one)
                say(f"round {number + 1}: batches of {size}: {one.rate:.1f}/s in {one.elapsed_s:.2f} s")
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated"}
    measurements = [*(asdict(one) for one in found), *(asdict(one) for one in fed)]
    tables = [_table(plan, ideal, found), _fed_table(fed)]
    return Report(
        "batching", parameters, tables, [*NOTES, _verdict(plan, ideal, found)], measurements, _chart(plan, found, fed)
    )


def _fed(size: int, questions: Sequence[Question], plan: Plan, settings: Settings) -> Fed:
    def rate(way: feed.Feed, some: Sequence[Question]) -> float:
        return plan.workers * len(some) / feed.stub_takes_s(way, some, settings)

    share = questions[:: plan.workers]
    few = share[: max(SLOW, 2 * size)]
    return Fed(
        size,
        rate(feed.whole_batches(size, 1), few),
        rate(feed.whole_batches(size, OVERLAPPED), share),
        rate(feed.by_capacity(plan.sequences, size), share),
    )


def _fleet(questions: Path, batch_size: int, plan: Plan, settings: Settings) -> Measurement:
    own = for_bench(settings, {"model.generator_settings.batch_size": batch_size})
    with (
        Rig(own, plan.workers) as rig,
        rig.helper("producer_process", str(questions), str(rig.folder / "answers.jsonl"), rig.url) as producer,
    ):
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        rig.check()
    if result["answered"] != plan.count:
        raise BenchFailedError(f"{result['answered']} of {plan.count} questions were answered")
    return Measurement(batch_size, result["answered"], result["elapsed_s"])


def _rates(plan: Plan, found: Sequence[Measurement]) -> dict[int, list[float]]:
    return {size: [one.rate for one in found if one.batch_size == size] for size in plan.batch_sizes}


def _table(plan: Plan, ideal: float, found: Sequence[Measurement]) -> Table:
    rows: list[tuple[str, float, str, float]] = [("ideal: all at once, no fleet", round(ideal, 1), "", 1.0)]
    for size, rates in _rates(plan, found).items():
        rows.append((f"batches of {size}", middle(rates, 1), from_to(rates, 1), round(median(rates) / ideal, 3)))
    return Table("Answers per second; medians", ("fed", "answers/s", "range", "of the ideal"), rows)


def _fed_table(fed: Sequence[Fed]) -> Table:
    columns = ("batch", "one at a time", f"{OVERLAPPED} at a time, whole", "when there is room")
    rows = [(one.size, round(one.one_at_a_time, 1), round(one.overlapped, 1), round(one.by_capacity, 1)) for one in fed]
    return Table("Answers per second by the way to feed, without a fleet", columns, rows)


def _verdict(plan: Plan, ideal: float, found: Sequence[Measurement]) -> str:
    fleet = [median(rates) for rates in _rates(plan, found).values()]
    return (
        f"The slowest batch size reaches {min(fleet) / ideal:.3f} of the ideal, all together "
        f"{mean(fleet) / ideal:.3f}; between the slowest and the "
        f"fastest lie {100 * (1 - min(fleet) / max(fleet)):.1f} %."
    )


def _chart(plan: Plan, found: Sequence[Measurement], fed: Sequence[Fed]) -> Lines:
    lines: dict[str, list[tuple[float, float]]] = {
        "this fleet": [(float(size), median(rates)) for size, rates in sorted(_rates(plan, found).items())],
        "when there is room": [(one.size, one.by_capacity) for one in fed],
        f"{OVERLAPPED} whole batches": [(one.size, one.overlapped) for one in fed],
        "one batch at a time": [(one.size, one.one_at_a_time) for one in fed],
    }
    return Lines(
        "What the batch size does, by the way to feed", "questions in a batch", "answers per second", lines, log_x=True
    )
