"""`benchmarks latency`: what a fleet adds to one question, idle and under load, and where the milliseconds go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import make_questions
from batchfleet.tuning.table_report import Cell, Report, Table, middle, percentile
from benchmarks import latency_under_load
from benchmarks.rig import Rig, for_bench
from benchmarks.stage_trace import STAGES, Trace
from producer.collector import Collector
from producer.questions.question_file import ParsedQuestion
from producer.sender import Sender

NOTES = [
    "One question at a time, from before it is sent until its record is decoded, both in the producer's process.",
    (
        "The stub answers at once: all of it is added by the fleet. Stages are of further questions, for which MONITOR "
        "slows Redis a little."
    ),
    (
        "Under load: questions come at random times; "
        "each counts from when it was due until its record is decoded, less its tokens times the step."
    ),
    (
        "Up to one step of waiting for the engine's next one is in it. "
        "Hungry flush off: the batcher waits out batch_timeout."
    ),
]
PATIENCE_S = 30.0
SETTLE_EVERY = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        count: Questions in a round.
        traced: Questions after the rounds whose stages are looked at.
        loads: Per cent of what the engines can do, at which many questions are under way.
        seconds: For each load.
        pause_s: Between two questions; up to as much again is added at random, so that they meet no clock of the fleet
            in step.
    """

    count: int = 200
    traced: int = 100
    rounds: int = 3
    workers: int = 2
    seed: int = 1
    pause_s: float = 0.02
    loads: Sequence[float] = (1.0, 30.0, 80.0)
    seconds: float = 15.0


class Client:
    """A producer that asks one question and waits for its record, through the very parts that the real one uses."""

    def __init__(self, rig: Rig, questions: int) -> None:
        settings = rig.settings.model_copy(update={"redis": rig.settings.redis.model_copy(update={"url": rig.url})})
        self._model = rig.model
        options = to_options.producer_options(settings)
        self._sender = Sender(rig.client, rig.keys, "latency", {"questions": "one at a time"}, questions, options)
        self._collector = Collector(rig.client, rig.keys, "latency", self._sender, options)
        self._sender.open()
        self._sent = 0

    def ask(self, text: str) -> float:
        """Returns how long it took, in seconds."""
        asked = ParsedQuestion(self._sent, self._sent + 1, f"q{self._sent}", text, None, None, {}, 0, None, None)
        began = time.perf_counter()
        sent = self._sender.send(self._sent, self._sent + 1, [asked], self._model)
        records = self._collector.receive(0.25)
        while not records and time.perf_counter() - began < PATIENCE_S:
            records = self._collector.receive(0.25)
        took_s = time.perf_counter() - began
        if sent.outcome != "ok" or not records or records[0].index != self._sent or records[0].status != "answered":
            raise BenchFailedError(f"a question was not answered ({sent.outcome}, {len(records)} records)")
        self._sent += 1
        if self._sent % SETTLE_EVERY == 0:
            self._collector.acknowledge()
        return took_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each round."""
    own = for_bench(settings, {"stub.step_s": 0.0})
    pause = random.Random(plan.seed)  # noqa: S311 (not for secrets)
    texts = make_questions(1 + plan.rounds * plan.count + plan.traced, plan.seed)
    rounds = []
    with Rig(own, plan.workers) as rig:
        client = Client(rig, 1 + plan.rounds * plan.count + plan.traced)
        # The first question of a fleet makes the batcher find its stream, and Redis load the scripts.
        client.ask(next(texts))
        for number in range(plan.rounds):
            rounds.append([1000 * _after_pause(client, next(texts), plan, pause) for _ in range(plan.count)])
            say(
                f"round {number + 1}: "
                f"p50 {percentile(rounds[-1], 0.5):.2f} ms, p99 {percentile(rounds[-1], 0.99):.2f} ms"
            )
        stages = _stages(rig, client, [next(texts) for _ in range(plan.traced)], plan, pause)
        rig.check()
    levels = latency_under_load.measure(plan.loads, plan.seconds, plan.workers, plan.seed, settings, say)
    generator = own.model.generator_settings
    parameters = {
        **asdict(plan),
        "batch_size": generator.batch_size,
        "batch_timeout_s": generator.batch_timeout,
        "linger_s": own.leases.linger_s,
    }
    measurements: list[dict[str, Any]] = [{"round": number, "ms": took} for number, took in enumerate(rounds, 1)]
    measurements += [asdict(level) for level in levels]
    return Report(
        "latency",
        parameters,
        [_table(rounds), _stage_table(stages), latency_under_load.table(levels)],
        NOTES,
        measurements,
    )


def _after_pause(client: Client, text: str, plan: Plan, pause: random.Random) -> float:
    time.sleep(plan.pause_s * (1 + pause.random()))
    return client.ask(text)


def _stages(rig: Rig, client: Client, texts: Sequence[str], plan: Plan, pause: random.Random) -> dict[str, list[float]]:
    """Milliseconds of each stage, for each of `texts`."""
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    with Trace(rig.url, rig.keys, rig.model) as trace:
        for text in texts:
            time.sleep(plan.pause_s * (1 + pause.random()))
            sent_at = time.time()
            client.ask(text)
            for name, took_s in trace.stages(sent_at, time.time()).items():
                stages[name].append(1000 * took_s)
    return stages


def _table(rounds: list[list[float]]) -> Table:
    every = [took for one in rounds for took in one]
    rows: list[list[Cell]] = [[str(number), *_figures(one)] for number, one in enumerate(rounds, 1)]
    return Table("Added latency, ms", ("round", "p50", "p95", "p99", "most"), [*rows, ["all", *_figures(every)]])


def _figures(took: list[float]) -> list[float]:
    return [
        round(value, 2) for value in (percentile(took, 0.5), percentile(took, 0.95), percentile(took, 0.99), max(took))
    ]


def _stage_table(stages: dict[str, list[float]]) -> Table:
    rows = [(STAGES[name], middle(took, 2), round(percentile(took, 0.95), 2)) for name, took in stages.items() if took]
    return Table("Stages, ms", ("stage", "p50", "p95"), rows)
