"""saq. Everything runs on asyncio; `concurrency` says how many jobs a worker has at once.

Its README has 10 unless set, as its own benchmark. `queue.map` asks many and fetches their results.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from saq.queue.redis import RedisQueue

from benchmarks.peers.consumer import answer

PACKAGES = ("saq", "redis")
CONFIGURED = "concurrency 100 in each worker; queue.map, which looks every 0.25 s"
URL = os.environ["PEER_REDIS_URL"]
PATIENCE_S = 120.0


def _queue() -> RedisQueue:
    return RedisQueue(redis.asyncio.Redis.from_url(URL, socket_timeout=120), name="peer")


async def answer_task(_context: dict[str, Any], *, text: str) -> str:
    return answer(text)


settings = {"queue": _queue(), "functions": [("answer", answer_task)], "concurrency": 100}


def worker_commands(workers: int) -> list[list[str]]:
    return [["-m", "saq", f"{__name__}.settings", "--quiet"]] * workers


def ask(questions: Sequence[str]) -> list[str]:
    return asyncio.run(_ask(questions))


async def _ask(questions: Sequence[str]) -> list[str]:
    queue = _queue()
    await queue.connect()
    try:
        answers: list[str] = await queue.map(
            "answer", [{"text": text} for text in questions], timeout=PATIENCE_S, poll_interval=0.25, ttl=600
        )
    finally:
        await queue.disconnect()
    return answers
