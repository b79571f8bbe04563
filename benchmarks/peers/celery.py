"""Celery, with a large prefetch multiplier.

Its guide to optimizing, on prefetch limits: 64 or 128, say, for many short tasks. Acknowledged early, the default; one
connection for all that is sent; no gossip, mingling or heartbeats between workers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from celery import Celery
from celery.result import ResultSet

from benchmarks.peers.consumer import answer

PACKAGES = ("celery", "kombu", "redis")
CONFIGURED = "prefork pool, prefetch multiplier 128, no gossip, mingle or heartbeat; ResultSet.join_native"
URL = "redis+socket" + os.environ["PEER_REDIS_URL"].removeprefix("unix")
PATIENCE_S = 60

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(
    worker_prefetch_multiplier=128, task_acks_late=False, broker_connection_retry_on_startup=True, result_expires=600
)
answer_task = app.task(answer, name="answer")


def worker_commands(workers: int) -> list[list[str]]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    return [["-m", "celery", "--app", __name__, "worker", "--pool", "prefork", "--concurrency", str(workers), *quiet]]


def ask(questions: Sequence[str]) -> list[str]:
    with app.producer_or_acquire() as producer:
        sent = ResultSet([answer_task.apply_async((text,), producer=producer) for text in questions])
    answers: list[str] = sent.join_native(timeout=PATIENCE_S)
    return answers
