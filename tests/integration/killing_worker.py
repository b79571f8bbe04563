"""A worker whose vLLM engine is killed whenever it is given a question with the marker in it.

`python killing_worker.py ARGUMENTS OF batchfleet`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from batchfleet.cli.main import main
from gpu_worker.engines.engine import Outcome
from gpu_worker.engines.vllm.engine import VllmEngine
from wire.messages import Question

MARKER = "KILLER"


def engine_core() -> int:
    """The child of this process in which the engine runs."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().startswith("VLLM::EngineCor"):
                return int(child)
    raise AssertionError("no engine runs")


class FragileEngine(VllmEngine):
    """The real engine, but for the marker."""

    async def answer(self, question: Question) -> Outcome:
        if MARKER in question.text:
            os.kill(engine_core(), signal.SIGKILL)
        return await super().answer(question)


if __name__ == "__main__":
    # `batchfleet.settings.to_options` imports the engine only when it makes one, and finds this one then.
    import gpu_worker.engines.vllm.engine

    setattr(gpu_worker.engines.vllm.engine, "VllmEngine", FragileEngine)  # noqa: B010 (mypy forbids the plain assignment, rightly)
    sys.exit(main(sys.argv[1:]))
