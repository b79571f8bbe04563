"""Ray Data: questions as rows of a data set, answered by a pool of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import ray.data

from benchmarks.peers.consumer import answer
from benchmarks.peers.ray_cluster import start

PACKAGES = ("ray",)
CONFIGURED = (
    "from_items, map by as many processes as workers, take_all; Ray chooses its own batches, and starts the processes "
    "anew each time"
)
_workers: list[int] = []


class Answering:
    """One worker."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"number": row["number"], "answer": answer(row["text"])}


def worker_commands(workers: int) -> list[list[str]]:
    start(workers)
    ray.data.DataContext.get_current().enable_progress_bars = False
    _workers.append(workers)
    return []


def ask(questions: Sequence[str]) -> list[str]:
    rows = [{"number": number, "text": text} for number, text in enumerate(questions)]
    answered = ray.data.from_items(rows).map(Answering, concurrency=_workers[0]).take_all()
    return [str(row["answer"]) for row in sorted(answered, key=lambda row: int(row["number"]))]
