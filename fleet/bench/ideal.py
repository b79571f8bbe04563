"""One engine, fed with everything at once, without a fleet: what a fleet can at best come up to."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from fleet import building
from fleet.bench import helping
from gpu_worker.engines.engine import Engine
from producer.reading import Asked, ReadingLimits, read_questions
from wire.messages import Question


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions")
    parser.add_argument("share", type=int, help="takes every `of`-th question, beginning with this one")
    parser.add_argument("of", type=int)
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    settings = helping.load(arguments.config)
    engine = building.build_engine(settings, "stub")
    asked = [one for one in read_questions(Path(arguments.questions), ReadingLimits()) if isinstance(one, Asked)]
    questions = [_question(one, engine.model) for one in asked[arguments.share :: arguments.of]]
    with asyncio.Runner(loop_factory=building.event_loop()) as runner:
        runner.run(_answer_all(engine, questions))
    return 0


async def _answer_all(engine: Engine, questions: list[Question]) -> None:
    await engine.start()
    helping.wait_for_go()
    began = time.monotonic()
    await asyncio.gather(*(engine.answer(question) for question in questions))
    elapsed_s = time.monotonic() - began
    await engine.stop()
    helping.tell({"elapsed_s": elapsed_s, "answered": len(questions), "steps": engine.progress()})


def _question(asked: Asked, model: str) -> Question:
    return Question(run="ideal", index=asked.index, request_id=asked.request_id, model=model, prompt=asked.prompt, submitted_at=0.0)


if __name__ == "__main__":
    sys.exit(main())
