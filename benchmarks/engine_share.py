"""`benchmarks engine`: how much of what vLLM can do by itself a fleet gets out of it, whatever the batch size."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError, Helper, environment, write_config
from batchfleet.tuning.sample_questions import make_questions, texts_of
from batchfleet.tuning.table_report import Report, Table, from_to, middle
from benchmarks.chart import Lines
from benchmarks.rig import Rig, for_bench

NOTES = [
    (
        "Raw: vLLM's AsyncLLM in a process of its own, with the same arguments and prompts, "
        "fed with so many requests in flight. The fastest counts."
    ),
    (
        "Batches at a time: raw again; each is awaited whole before another takes its place. With fewer questions, and "
        "once, for some are very slow."
    ),
    (
        "Fleet: one worker at its default capacity, one batcher, Redis and a producer; "
        "from the first push to the last line on disk."
    ),
    (
        "Every answer has exactly its number of tokens (min_tokens, max_tokens, ignore_eos). "
        "Both engines are booted once and measured in turn."
    ),
    "Each engine answers all questions once before the first round: the first time, an engine is slower.",
]
EVEN = (0.0, 0.0)
ONE, OVERLAPPED = 1, 2
"""Batches at a time."""
SLOW_SHARE, LEAST_BATCHES = 8, 4
"""Whole batches are measured with this fraction of the questions, but at least so many batches.

They are a very slow way to feed an engine.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: raw vLLM and the fleet at every batch size, in turn, `rounds` times.

    Attributes:
        fed_by: Sizes of the batches that raw vLLM is fed whole, one at a time and two at a time; 1: one question by
            itself.
        tokens: Shortest and longest answer.
        lognormal: Mean and deviation of the logarithm of the answers' lengths; `EVEN` for an even spread.
        prompt_chars: Shortest and longest prompt; made ones are cut to between these, those of a file are left alone.
    """

    count: int = 4096
    batch_sizes: Sequence[int] = (8, 16, 64, 256)
    fed_by: Sequence[int] = (16,)
    rounds: int = 3
    seed: int = 1
    source: Path | None = None
    tokens: tuple[int, int] = (8, 128)
    lognormal: tuple[float, float] = EVEN
    prompt_chars: tuple[int, int] = (20, 200)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run.

    Attributes:
        fed: How, in words.
        raw: By AsyncLLM itself.
        size: Questions in a batch, or in flight; 0: all at once.
        at_once: Whole batches at a time; 0 if a batch is no barrier.
        again: Questions that were given to a worker more than once.
    """

    fed: str
    raw: bool
    size: int
    questions: int
    elapsed_s: float
    at_once: int = 0
    again: int = 0

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement.

    Raises:
        UsageError: The settings name no model for vLLM.
    """
    to_options.model_name(settings, "vllm")
    own = for_bench(settings, {})
    ready_s = own.model.generator_settings.server_startup_timeout
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        _write_questions(folder / "questions.jsonl", plan)
        write_config(folder, own)
        with Helper("benchmarks.raw_vllm", (str(folder / "questions.jsonl"),), environment(own), folder) as raw:
            sequences = int(raw.wait_until_ready()["max_num_seqs"])
            with Rig(own, 1, engine="vllm", ready_s=ready_s) as rig:
                alone = _raw(raw, "raw", plan.count, sequences)
                fed = _fleet(plan, max(plan.batch_sizes), rig, folder, "warm-up")
                say(f"warm-up: {alone.rate:.1f}/s, {fed.rate:.1f}/s")
                for number in range(plan.rounds):
                    for one in _round(plan, raw, sequences, rig, folder, number):
                        found.append(one)
                        again = f", {one.again} questions begun again" if one.again else ""
                        say(f"round {number + 1}: {one.fed}: {one.rate:.1f}/s in {one.elapsed_s:.2f} s{again}")
                complaints = rig.complaints()
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated", "max_num_seqs": sequences}
    return Report(
        "engine",
        parameters,
        [_table(found)],
        [*NOTES, _verdict(found), *complaints],
        [asdict(one) for one in found],
        _chart(found),
    )


def _round(plan: Plan, raw: Helper, sequences: int, rig: Rig, folder: Path, number: int) -> Iterator[Measurement]:
    for in_flight in (sequences, sequences * 3 // 2):
        yield _raw(raw, f"raw: {in_flight} in flight", plan.count, in_flight)
    yield _raw(raw, "raw: all at once", plan.count, 0)
    if number == 0:
        for size in plan.fed_by:
            some = min(plan.count, max(plan.count // SLOW_SHARE, LEAST_BATCHES * size))
            yield _raw(raw, f"raw: one {_batch(size)} at a time", some, size, ONE)
            yield _raw(raw, f"raw: two {_batch(size, 'es')} at a time", some, size, OVERLAPPED)
    for size in plan.batch_sizes:
        yield _fleet(plan, size, rig, folder, f"round-{number}")


def _batch(size: int, plural: str = "") -> str:
    if size == 1:
        return "questions" if plural else "question"
    return f"batch{plural} of {size}"


def _raw(raw: Helper, fed: str, count: int, size: int, at_once: int = 0) -> Measurement:
    raw.tell(json.dumps([count, size or count, at_once]))
    return Measurement(fed, raw=True, size=size, questions=count, elapsed_s=raw.result()["elapsed_s"], at_once=at_once)


def _fleet(plan: Plan, size: int, rig: Rig, folder: Path, when: str) -> Measurement:
    rig.batch_by(size)
    run = f"batches-of-{size}-{when}"
    arguments = (
        str(folder / "questions.jsonl"),
        str(folder / f"{run}.jsonl"),
        rig.url,
        "--engine",
        "vllm",
        "--run",
        run,
    )
    with rig.helper("producer_process", *arguments) as producer:
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        rig.check()
    # Tokens of random weights may have no text. They cost what others cost, and raw vLLM counts them too.
    if result["answered"] + result["empty"] != plan.count:
        msg = f"{result['answered']} of {plan.count} questions were answered, {result['failed']} failed"
        raise BenchFailedError(msg)
    fed = f"fleet: batches of {size}"
    return Measurement(
        fed, raw=False, size=size, questions=plan.count, elapsed_s=result["elapsed_s"], again=result["again"]
    )


def _write_questions(path: Path, plan: Plan) -> None:
    draw = random.Random(plan.seed)  # noqa: S311 (not for secrets)
    texts = texts_of(plan.source, plan.count) if plan.source else make_questions(plan.count, plan.seed)
    with path.open("wb") as file:
        for number, text in enumerate(texts):
            prompt = text if plan.source else text[: draw.randint(*plan.prompt_chars)]
            length = _length(plan, draw)
            params = {"max_tokens": length, "min_tokens": length, "ignore_eos": True}
            file.write(orjson.dumps({"id": f"q{number}", "question": prompt, "params": params}) + b"\n")


def _length(plan: Plan, draw: random.Random) -> int:
    if plan.lognormal == EVEN:
        return draw.randint(*plan.tokens)
    return int(min(max(draw.lognormvariate(*plan.lognormal), plan.tokens[0]), plan.tokens[1]))


def _table(found: list[Measurement]) -> Table:
    best = _best_raw(found)
    rows = []
    for fed in dict.fromkeys(one.fed for one in found):
        rates = [one.rate for one in found if one.fed == fed]
        rows.append((fed, middle(rates, 1), from_to(rates, 1), round(median(rates) / best, 3)))
    return Table("Answers per second; medians", ("fed", "answers/s", "range", "of the best raw"), rows)


def _best_raw(found: list[Measurement]) -> float:
    return max(
        median(one.rate for one in found if one.fed == fed)
        for fed in {one.fed for one in found if one.raw and not one.at_once}
    )


def _chart(found: list[Measurement]) -> Lines:
    def line(*, raw: bool, at_once: int) -> list[tuple[float, float]]:
        these = [one for one in found if (one.raw, one.at_once) == (raw, at_once)]
        return [
            (float(size), median(one.rate for one in these if one.size == size))
            for size in sorted({one.size for one in these})
        ]

    fleet, one, two = line(raw=False, at_once=0), line(raw=True, at_once=ONE), line(raw=True, at_once=OVERLAPPED)
    sizes = [size for size, _ in (*fleet, *one, *two)]
    best = [(size, _best_raw(found)) for size in (min(sizes), max(sizes))]
    lines = {
        "this fleet": fleet,
        "raw vLLM at its best": best,
        "two batches at a time": two,
        "one batch at a time": one,
    }
    return Lines(
        "What the batch size does to vLLM, by the way to feed it",
        "questions in a batch",
        "answers per second",
        lines,
        log_x=True,
    )


def _verdict(found: list[Measurement]) -> str:
    fleets = [
        median(one.rate for one in found if one.fed == fed)
        for fed in dict.fromkeys(one.fed for one in found if not one.raw)
    ]
    return (
        f"Fleet / raw: {min(fleets) / _best_raw(found):.3f} at the slowest batch size, "
        f"{max(fleets) / _best_raw(found):.3f} at the fastest; "
        f"between these lie {100 * (1 - min(fleets) / max(fleets)):.1f} %."
    )
