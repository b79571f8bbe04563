"""`benchmarks engine`: how much of what vLLM can do by itself a fleet gets out of it, in a shape, by batch size."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from batchfleet.humanize import plural
from batchfleet.settings import to_options
from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import make_questions, texts_of
from batchfleet.tuning.shapes import Shape, this_host
from batchfleet.tuning.table_report import Report
from benchmarks import engine_report
from benchmarks.engine_report import Measurement
from benchmarks.raw_engines import RawEngines
from benchmarks.rig import Rig, for_bench

EVEN = (0.0, 0.0)
SLOW_S = 20.0
"""Whole batches are a very slow way to feed an engine: none is begun after so long."""
KILL_S = 60.0
"""Longest until a run has its first answers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: raw vLLM and the fleet at every batch size, in turn, `rounds` times.

    Attributes:
        shape: As `Shape.parse` reads it; `configured` for one worker as the configuration has it.
        in_flight: In each raw engine; none for as many as it works on, 1.5 times that, and all.
        fed_by: Sizes of the batches that one raw engine is fed whole, so many at a time; 1: questions by themselves.
        limit_s: Seconds for all; no round is begun that would end later. Boots may take longer.
        killed: Workers that are killed under load after the rounds.
        fewer: Numbers of workers with which the fleet is measured after that, falling.
        tokens: Shortest and longest answer.
        lognormal: Mean and deviation of the logarithm of the answers' lengths; `EVEN` for an even spread.
        prompt_chars: Shortest and longest prompt; made ones are cut to between these, those of a file are left alone.
    """

    count: int = 4096
    shape: str = "configured"
    batch_sizes: Sequence[int] = (8, 16, 64, 256)
    in_flight: Sequence[int] = ()
    fed_by: Sequence[int] = (16,)
    rounds: int = 3
    limit_s: float = 3600.0
    killed: Sequence[int] = ()
    fewer: Sequence[int] = ()
    seed: int = 1
    source: Path | None = None
    tokens: tuple[int, int] = (8, 128)
    lognormal: tuple[float, float] = EVEN
    prompt_chars: tuple[int, int] = (20, 200)


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement.

    Raises:
        UsageError: The settings name no model for vLLM, or this host has not the GPUs for the shape.
    """
    to_options.model_name(settings, "vllm")
    shape, own = _shaped(plan, for_bench(settings, {}))
    host = this_host("vllm")
    host.check(shape)
    environs = host.environs(shape)
    ready_s = own.model.generator_settings.server_startup_timeout
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        _write_questions(folder / "questions.jsonl", plan)
        began = time.monotonic()
        with RawEngines(own, environs, folder / "questions.jsonl", folder, ready_s) as raw:
            say(f"{shape}: raw engines booted in {time.monotonic() - began:.0f} s")
            began = time.monotonic()
            with Rig(own, shape.workers, engine="vllm", ready_s=ready_s, environs=environs) as rig:
                say(f"{shape}: fleet booted in {time.monotonic() - began:.0f} s")
                for one in _Measuring(plan, raw, rig, folder, shape.workers).all():
                    found.append(one)
                    say(one.in_words())
                complaints = rig.complaints()
    parameters = {
        **asdict(plan),
        "source": plan.source.name if plan.source else "generated",
        "max_num_seqs": raw.sequences,
    }
    return engine_report.report(parameters, [one for one in found if one.round], complaints)


def _shaped(plan: Plan, settings: Settings) -> tuple[Shape, Settings]:
    args = {name.replace("-", "_"): value for name, value in settings.model.generator_settings.vllm_args.items()}
    if plan.shape == "configured":
        given = args.get("tensor_parallel_size", 1)
        return Shape(1, given if isinstance(given, int) else 1), settings
    shape = Shape.parse(plan.shape)
    args["tensor_parallel_size"] = shape.tensor_parallel
    return shape, with_changes(settings, {"model.generator_settings.vllm_args": args})


class _Measuring:
    """Of one fleet and one set of raw engines, which are there at the same time and asked in turn."""

    def __init__(self, plan: Plan, raw: RawEngines, rig: Rig, folder: Path, workers: int) -> None:
        self._plan = plan
        self._raw = raw
        self._rig = rig
        self._folder = folder
        self._workers = self._most_workers = workers
        self._runs = 0

    def all(self) -> Iterator[Measurement]:
        plan, began, slowest_s = self._plan, time.monotonic(), 0.0
        # Each answers all questions once before the first round: the first time, an engine is slower.
        yield self._raw_engines(0, self._raw.sequences)
        yield self._fleet(0, max(plan.batch_sizes))
        for number in range(1, plan.rounds + 1):
            started = time.monotonic()
            if number > 1 and started - began + slowest_s > plan.limit_s:
                break
            yield from self._round(number)
            slowest_s = max(slowest_s, time.monotonic() - started)
        for size in plan.fed_by:
            # What looks like batches of 1, eight at a time, is what never has more than eight in flight.
            for at_once in (1, 8) if size == 1 else (1, 2):
                yield self._whole_batches(size, at_once)
        for count in plan.killed:
            yield self._fleet(1, plan.batch_sizes[0], kill=count)
            self._workers -= count
        for workers in plan.fewer:
            self._rig.keep_workers(workers)
            self._workers = workers
            yield self._fleet(1, plan.batch_sizes[0])

    def _round(self, number: int) -> Iterator[Measurement]:
        sequences = self._raw.sequences
        for in_flight in self._plan.in_flight or (sequences, sequences * 3 // 2, 0):
            yield self._raw_engines(number, in_flight)
        for size in self._plan.batch_sizes:
            yield self._fleet(number, size)

    def _raw_engines(self, number: int, in_flight: int) -> Measurement:
        asked = self._raw.ask(self._plan.count, in_flight)
        way = f"{in_flight} in flight" if in_flight else "all at once"
        return Measurement(
            f"raw: {way}",
            number,
            asked.answered,
            asked.elapsed_s,
            size=in_flight,
            raw=True,
            sum_of_rates=sum(asked.rates),
        )

    def _whole_batches(self, size: int, at_once: int) -> Measurement:
        asked = self._raw.ask_one(self._plan.count, size, at_once, SLOW_S)
        ways = {(1, 1): "one question", (1, 8): "eight questions"}
        fed = ways.get((size, at_once), f"one batch of {size}" if at_once == 1 else f"two batches of {size}")
        return Measurement(
            f"raw: {fed} at a time", 1, asked.answered, asked.elapsed_s, size=size, raw=True, at_once=at_once
        )

    def _fleet(self, number: int, size: int, kill: int = 0) -> Measurement:
        self._rig.batch_by(size)
        self._runs += 1
        run = f"run-{self._runs}"
        answers = self._folder / f"{run}.jsonl"
        arguments = (
            str(self._folder / "questions.jsonl"),
            str(answers),
            self._rig.url,
            "--engine",
            "vllm",
            "--run",
            run,
        )
        with self._rig.helper("producer_process", *arguments) as producer:
            producer.wait_until_ready()
            producer.go()
            if kill:
                _wait_for_answers(answers)
            for _ in range(kill):
                self._rig.kill_worker()
            result = producer.result()
            self._rig.check()
        # Tokens of random weights may have no text. They cost what others cost, and raw vLLM counts them too.
        if result["answered"] + result["empty"] != self._plan.count:
            raise BenchFailedError(
                f"{result['answered']} of {self._plan.count} questions were answered, {result['failed']} failed"
            )
        fed = f"fleet: batches of {size}"
        if kill:
            fed = f"fleet: {kill} of {self._workers} workers killed"
        elif self._workers < self._most_workers:
            fed = f"fleet: {plural(self._workers, 'worker')} left"
        return Measurement(fed, number, self._plan.count, result["elapsed_s"], size=size, again=result["again"])


def _wait_for_answers(answers: Path) -> None:
    deadline = time.monotonic() + KILL_S
    while not (answers.exists() and answers.stat().st_size):
        if time.monotonic() > deadline:
            raise BenchFailedError(f"no answer within {KILL_S:g} s: there was no load under which to kill a worker")
        time.sleep(0.05)


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
