"""dramatiq, with a process for each core and 8 threads in each.

Those are its defaults (the guide, on workers). gevent is recommended for what waits for the network, which these
answers do not (advanced topics).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.consumer import answer

PACKAGES = ("dramatiq", "redis")
CONFIGURED = "8 threads in each process; results of a group"
URL = os.environ["PEER_REDIS_URL"]
PATIENCE_MS = 60_000

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
answer_task = dramatiq.actor(answer, store_results=True)


def worker_commands(workers: int) -> list[list[str]]:
    return [["-m", "dramatiq", __name__, "--processes", str(workers), "--threads", "8"]]


def ask(questions: Sequence[str]) -> list[str]:
    sent = dramatiq.group([answer_task.message(text) for text in questions]).run()
    return list(sent.get_results(block=True, timeout=PATIENCE_MS))
