"""Ways to feed an engine that has no fleet around it: what fleets are compared with, and what other systems do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning import virtual_clock
from gpu_worker.engines.build import build_engine
from gpu_worker.engines.engine import Engine
from producer.options import ReadingLimits
from producer.questions.question_file import ParsedQuestion, Source, read_questions
from wire.messages import Question

Feed = Callable[[Engine, Sequence[Question]], Awaitable[None]]


async def all_at_once(engine: Engine, questions: Sequence[Question]) -> None:
    await asyncio.gather(*(engine.answer(question) for question in questions))


def whole_batches(size: int, at_once: int) -> Feed:
    """`at_once` batches at a time; each is awaited whole before another takes its place.

    `whole_batches(1, 1)`: one question at a time.
    """

    async def feed(engine: Engine, questions: Sequence[Question]) -> None:
        places = asyncio.Semaphore(at_once)

        async def answer(batch: Sequence[Question]) -> None:
            async with places:
                await all_at_once(engine, batch)

        await asyncio.gather(*(answer(questions[start : start + size]) for start in range(0, len(questions), size)))

    return feed


def by_capacity(capacity: int, size: int) -> Feed:
    """What a worker does: the next batch is taken as soon as fewer than `capacity` questions are in flight."""

    async def feed(engine: Engine, questions: Sequence[Question]) -> None:
        in_flight = 0
        room = asyncio.Event()

        async def answer(question: Question) -> None:
            nonlocal in_flight
            await engine.answer(question)
            in_flight -= 1
            room.set()

        async with asyncio.TaskGroup() as tasks:
            for start in range(0, len(questions), size):
                while in_flight >= capacity:
                    room.clear()
                    await room.wait()
                for question in questions[start : start + size]:
                    in_flight += 1
                    tasks.create_task(answer(question))

    return feed


def read_all(path: Path, model: str) -> list[Question]:
    """The questions of a file as an engine gets them."""
    asked = [one for one in read_questions(Source((path,)), ReadingLimits()) if isinstance(one, ParsedQuestion)]
    return [as_question(one, model) for one in asked]


def as_question(asked: ParsedQuestion, model: str) -> Question:
    return Question(
        run="bench",
        index=asked.index,
        request_id=asked.request_id,
        model=model,
        prompt=asked.prompt,
        messages=asked.messages,
        params=asked.params,
        submitted_at=0.0,
    )


def stub_takes_s(feed: Feed, questions: Sequence[Question], settings: Settings) -> float:
    """Seconds on the stub's clock until all are answered, exactly: the stub itself, on a virtual clock."""
    return virtual_clock.run(_takes_s(feed, questions, settings))


async def _takes_s(feed: Feed, questions: Sequence[Question], settings: Settings) -> float:
    engine = build_engine(to_options.engine_options(settings, "stub"))
    await engine.start()
    began = asyncio.get_running_loop().time()
    await feed(engine, questions)
    took_s = asyncio.get_running_loop().time() - began
    await engine.stop()
    return took_s
