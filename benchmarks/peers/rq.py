"""RQ by itself, with `SimpleWorker` and `enqueue_many`.

The first does not fork, and is for very short jobs (its notes on performance); the second is for many jobs in one go
(on jobs and queues).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import redis
from rq import Queue

from benchmarks.peers.consumer import answer

PACKAGES = ("rq", "redis")
CONFIGURED = "SimpleWorker; enqueue_many, 500 in one go; latest_result of each job"
URL = os.environ["PEER_REDIS_URL"]
AT_ONCE = 500
PATIENCE_S = 60


def worker_commands(workers: int) -> list[list[str]]:
    return [["-m", "rq.cli", "worker", "--url", URL, "--worker-class", "rq.SimpleWorker", "--quiet"]] * workers


def ask(questions: Sequence[str]) -> list[str]:
    with redis.Redis.from_url(URL, socket_timeout=2 * PATIENCE_S) as client:
        queue = Queue(connection=client)
        jobs = []
        for start in range(0, len(questions), AT_ONCE):
            some = questions[start : start + AT_ONCE]
            jobs += queue.enqueue_many([Queue.prepare_data(answer, args=(text,), result_ttl=600) for text in some])
        results = [job.latest_result(timeout=PATIENCE_S) for job in jobs]
        return [str(result.return_value) if result is not None else "" for result in results]
