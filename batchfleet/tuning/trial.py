"""One engine, booted once, and measured as often as the `Helper` at the other end asks."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchfleet.settings import to_options
from batchfleet.tuning import feed, helper
from gpu_worker.engines.build import build_engine
from gpu_worker.engines.engine import Engine, Refusal
from wire.messages import Question

MOST_WARM_UP = 4.0
"""The engine is filled and has turned over once before anything counts.

That may take so many times the window at most.
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions", type=Path)
    parser.add_argument("engine")
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    settings = helper.load(arguments.config)
    engine = build_engine(to_options.engine_options(settings, arguments.engine), to_options.image_options(settings))
    questions = feed.read_all(arguments.questions, engine.model)
    with asyncio.Runner(loop_factory=to_options.event_loop()) as runner:
        runner.run(_serve(engine, questions))
    return 0


async def _serve(engine: Engine, questions: Sequence[Question]) -> None:
    try:
        await engine.start()
        print(json.dumps({"ready": True, "max_num_seqs": engine.max_num_seqs}), flush=True)
        # One line for each measurement.
        while line := await asyncio.to_thread(sys.stdin.readline):
            capacity, batch_size, window_s = json.loads(line)
            trial = Trial(engine, itertools.cycle(questions), capacity, batch_size)
            print(json.dumps(await trial.measure(window_s)), flush=True)
    finally:
        await engine.stop()


@dataclass(slots=True)
class _Seen:
    answered: int = 0
    refused: int = 0
    tokens: int = 0
    refusal: str = ""


class Trial:
    """A worker's way to feed its engine, without a queue.

    The next batch is taken as soon as fewer than `capacity` questions are in flight.
    """

    def __init__(self, engine: Engine, questions: Iterator[Question], capacity: int, batch_size: int) -> None:
        self._engine = engine
        self._questions = questions
        self._capacity = capacity
        self._batch_size = batch_size
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen = _Seen()
        self._left = asyncio.Event()

    async def measure(self, window_s: float) -> dict[str, float | str]:
        """Answers/s and tokens/s of `window_s` seconds with a full engine; whatever is in flight then is dropped."""
        feeding_task = asyncio.create_task(self._feed())
        try:
            deadline = time.monotonic() + (MOST_WARM_UP * window_s)
            while self._seen.answered + self._seen.refused < self._capacity and time.monotonic() < deadline:
                self._engine.check()
                await asyncio.sleep(0.05)
            before, began = (self._seen.answered, self._seen.tokens), time.monotonic()
            await asyncio.sleep(window_s)
            took_s = time.monotonic() - began
            answered, tokens = self._seen.answered - before[0], self._seen.tokens - before[1]
        finally:
            feeding_task.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(feeding_task, *self._tasks, return_exceptions=True)
        return {
            "rate": answered / took_s,
            "tokens_per_s": tokens / took_s,
            "refused": self._seen.refused,
            "refusal": self._seen.refusal,
        }

    async def _feed(self) -> None:
        while True:
            while len(self._tasks) >= self._capacity:
                self._left.clear()
                await self._left.wait()
            for question in itertools.islice(self._questions, self._batch_size):
                task = asyncio.create_task(self._answer(question))
                self._tasks.add(task)
                task.add_done_callback(self._done)
            # An engine whose answers cost nothing would never let us measure.
            await asyncio.sleep(0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._left.set()

    async def _answer(self, question: Question) -> None:
        outcome = await self._engine.answer(question)
        if isinstance(outcome, Refusal):
            self._seen.refused += 1
            self._seen.refusal = outcome.message
        else:
            self._seen.answered += 1
            self._seen.tokens += outcome.usage.completion_tokens


if __name__ == "__main__":
    sys.exit(main())
