"""huey, with worker type `process`.

Its documentation recommends it for work that keeps a CPU busy, and as many of them as there are cores (consuming
tasks).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from huey import RedisHuey

from benchmarks.peers.consumer import answer

PACKAGES = ("huey", "redis")
CONFIGURED = "worker type process; ResultGroup of task.map"
PATIENCE_S = 60

queue = RedisHuey("peer", url=os.environ["PEER_REDIS_URL"])
answer_task = queue.task()(answer)


def worker_commands(workers: int) -> list[list[str]]:
    return [
        [
            "-m",
            "huey.bin.huey_consumer",
            f"{__name__}.queue",
            "--workers",
            str(workers),
            "--worker-type",
            "process",
            "--quiet",
        ]
    ]


def ask(questions: Sequence[str]) -> list[str]:
    answers: list[str] = answer_task.map(questions).get(blocking=True, timeout=PATIENCE_S, backoff=1, max_delay=0.005)
    return answers
