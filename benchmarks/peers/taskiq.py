"""taskiq, with uvloop and orjson, which are extras, several worker processes, and the list broker.

`--max-async-tasks` is how many tasks a worker has at once (the guide's page on the CLI); the list broker is for where
acknowledgements are not needed (README of taskiq-redis), and without them `--max-prefetch` has no use. Commands travel
100 at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import uvloop
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.peers.consumer import answer

PACKAGES = ("taskiq", "taskiq-redis", "redis", "uvloop")
CONFIGURED = "list broker, orjson, uvloop, 100 tasks at once in each worker; wait_result of each task, 100 at once"
URL = os.environ["PEER_REDIS_URL"]
PATIENCE_S = 60.0
AT_ONCE = 100

backend: RedisAsyncResultBackend[str] = RedisAsyncResultBackend(URL, result_ex_time=600, serializer=ORJSONSerializer())
broker = ListQueueBroker(URL).with_result_backend(backend).with_serializer(ORJSONSerializer())


@broker.task(task_name="answer")
async def answer_task(text: str) -> str:
    return answer(text)


def worker_commands(workers: int) -> list[list[str]]:
    quiet = ["--log-level", "ERROR", "--max-async-tasks", "100"]
    return [["-m", "taskiq", "worker", f"{__name__}:broker", "--workers", str(workers), *quiet]]


def ask(questions: Sequence[str]) -> list[str]:
    return uvloop.run(_ask(questions))


async def _ask(questions: Sequence[str]) -> list[str]:
    await broker.startup()
    places = asyncio.Semaphore(AT_ONCE)

    async def send(text: str) -> Any:  # noqa: ANN401 (taskiq is not installed where this is checked)
        async with places:
            return await answer_task.kiq(text)

    async def fetch(task: Any) -> str:  # noqa: ANN401 (as above)
        async with places:
            return str((await task.wait_result(check_interval=0.005, timeout=PATIENCE_S)).return_value)

    tasks = await asyncio.gather(*map(send, questions))
    answers = await asyncio.gather(*map(fetch, tasks))
    await broker.shutdown()
    return answers
