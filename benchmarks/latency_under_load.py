"""What a fleet adds to a question while others are under way.

Questions come at random times, whether or not the earlier ones are answered.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import make_questions
from batchfleet.tuning.table_report import Cell, Table, percentile
from benchmarks.rig import Rig, for_bench
from producer.collector import Collector
from producer.questions.question_file import ParsedQuestion
from producer.sender import Sender
from wire.connection import connect
from wire.messages import Answer, Failure

STEP_S, SEQUENCES, TOKENS = 0.002, 64, (16, 128)
"""Of the engines under load."""
SETTLE_S = 0.25
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of the benchmark, and what was found.

    Milliseconds beyond the engine's own time, for each question.
    """

    load: float
    hungry_flush: bool
    rate: float
    added_ms: list[float]


def measure(
    loads: Sequence[float], seconds: float, workers: int, seed: int, settings: Settings, say: Callable[[str], None]
) -> list[Level]:
    """Measure every load, in per cent of what the engines can do, with and without the hungry flush."""
    stub = {
        "stub.step_s": STEP_S,
        "stub.max_num_seqs": SEQUENCES,
        "stub.min_tokens": TOKENS[0],
        "stub.max_tokens": TOKENS[1],
    }
    full_rate = workers * SEQUENCES / (STEP_S * sum(TOKENS) / 2)
    levels = []
    for flush in (True, False):
        linger = {} if flush else {"leases.linger_s": settings.model.generator_settings.batch_timeout}
        for load in loads:
            rate = full_rate * load / 100
            with Rig(for_bench(settings, {**stub, **linger}), workers) as rig:
                added_ms = _Traffic(rig, rate, seconds, seed).added_ms()
                rig.check()
            levels.append(Level(load, flush, rate, added_ms))
            say(
                f"{load:g} % load, hungry flush {'on' if flush else 'off'}: p50 {percentile(added_ms, 0.5):.1f} ms "
                f"over {len(added_ms)} questions"
            )
    return levels


def table(levels: Sequence[Level]) -> Table:
    rows: list[list[Cell]] = []
    for level in levels:
        figures = [round(percentile(level.added_ms, share), 1) for share in (0.5, 0.95, 0.99)]
        rows.append(
            [
                f"{level.load:g}",
                "on" if level.hungry_flush else "off",
                round(level.rate, 1),
                len(level.added_ms),
                *figures,
            ]
        )
    return Table(
        "Added under load, ms", ("load, %", "hungry flush", "questions/s", "questions", "p50", "p95", "p99"), rows
    )


class _Traffic:
    """Questions that are due at times drawn before. One that is sent late has waited since it was due."""

    def __init__(self, rig: Rig, rate: float, seconds: float, seed: int) -> None:
        draw = random.Random(seed)  # noqa: S311 (not for secrets)
        self._due = list(_arrivals(draw, rate, seconds))
        self._texts = list(make_questions(len(self._due), seed))
        settings = rig.settings.model_copy(update={"redis": rig.settings.redis.model_copy(update={"url": rig.url})})
        options, address = to_options.producer_options(settings), to_options.redis_address(settings)
        self._client, self._model = connect(address), rig.model
        self._sender = Sender(
            rig.client, rig.keys, "traffic", {"questions": "at random times"}, len(self._due), options
        )
        self._collector = Collector(self._client, rig.keys, "traffic", self._sender, options)
        self._sender.open()
        self._began = 0.0
        self._failed: BaseException | None = None

    def added_ms(self) -> list[float]:
        """Send all and collect all; returns milliseconds beyond the engine's own time, by question."""
        self._began = time.monotonic() + 0.1
        sending = threading.Thread(target=self._send_all, daemon=True)
        sending.start()
        added: list[float] = []
        settle_at = 0.0
        deadline = self._began + self._due[-1] + PATIENCE_S
        while len(added) < len(self._due):
            records = self._collector.receive(SETTLE_S)
            now = time.monotonic() - self._began
            added += [1000 * (now - self._due[record.index] - _engine_s(record)) for record in records]
            self._collector.written()
            if now >= settle_at:
                self._collector.acknowledge()
                settle_at = now + SETTLE_S
            if self._failed is not None or time.monotonic() > deadline:
                raise BenchFailedError(
                    f"{len(added)} of {len(self._due)} questions were answered ({self._failed or 'no more came'})"
                )
        sending.join()
        self._client.close()
        return added

    def _send_all(self) -> None:
        sent = 0
        try:
            while sent < len(self._due):
                time.sleep(max(0.0, self._due[sent] - (time.monotonic() - self._began)))
                until = sent + 1
                while until < len(self._due) and self._due[until] <= time.monotonic() - self._began:
                    until += 1
                chunk = [
                    ParsedQuestion(i, i + 1, f"q{i}", self._texts[i], None, None, {}, 0, None, None)
                    for i in range(sent, until)
                ]
                outcome = self._sender.send(sent, until, chunk, self._model).outcome
                if outcome != "ok":
                    raise BenchFailedError(f"a question was not accepted: {outcome}")  # noqa: TRY301 (told to the other thread below, as any other error)
                sent = until
        except BaseException as error:  # noqa: BLE001 (the other thread raises it)
            self._failed = error


def _arrivals(draw: random.Random, rate: float, seconds: float) -> Iterator[float]:
    at = draw.expovariate(rate)
    yield at
    while (at := at + draw.expovariate(rate)) < seconds:
        yield at


def _engine_s(record: Answer | Failure) -> float:
    if not isinstance(record, Answer):
        raise BenchFailedError(f"a question failed: {record.error.message}")
    return record.usage.completion_tokens * STEP_S
