"""arq. Its worker polls: `max_jobs` says how many jobs it has at once, `poll_delay` how often it looks.

Its documentation names no settings for throughput, so both are far beyond their defaults (10 and 0.5 s), and commands
travel 100 at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers.consumer import answer

PACKAGES = ("arq", "redis", "uvloop")
CONFIGURED = "uvloop, max_jobs 100, poll_delay 0.01 s; job.result of each job, 100 at once"
REDIS = RedisSettings(unix_socket_path=os.environ["PEER_REDIS_URL"].removeprefix("unix://"))
PATIENCE_S = 60.0
AT_ONCE = 100


async def answer_task(_context: dict[Any, Any], text: str) -> str:
    return answer(text)


class WorkerSettings:
    """Read by `arq`."""

    functions: ClassVar[list[Any]] = [answer_task]
    redis_settings = REDIS
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 600


def worker_commands(workers: int) -> list[list[str]]:
    return [
        [
            "-c",
            (
                f"import uvloop; uvloop.install(); from arq.worker import run_worker; from {__name__} import *; "
                "run_worker(WorkerSettings)"
            ),
        ]
    ] * workers


def ask(questions: Sequence[str]) -> list[str]:
    return uvloop.run(_ask(questions))


async def _ask(questions: Sequence[str]) -> list[str]:
    pool = await create_pool(REDIS)
    places = asyncio.Semaphore(AT_ONCE)

    async def send(text: str) -> Any:  # noqa: ANN401 (arq is not installed where this is checked)
        async with places:
            return await pool.enqueue_job("answer_task", text)

    async def fetch(job: Any) -> str:  # noqa: ANN401 (as above)
        async with places:
            return str(await job.result(timeout=PATIENCE_S, poll_delay=0.005))

    jobs = await asyncio.gather(*map(send, questions))
    answers = await asyncio.gather(*map(fetch, jobs))
    await pool.aclose()
    return answers
