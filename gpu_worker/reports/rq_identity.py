"""The worker as RQ's own tools see it: `rq info` lists it with its queue and state."""

from __future__ import annotations

from datetime import UTC, datetime

import redis
from rq import Queue, SimpleWorker, worker_registration
from rq.utils import utcformat
from rq.worker import WorkerStatus

from wire.codec import BatchSerializer
from wire.keys import Keys

TTL_S = 30


class RqIdentity:
    """One RQ worker identity per process; only its bookkeeping is used, never its job execution.

    Blocking: call it in a thread.
    """

    def __init__(self, client: redis.Redis, keys: Keys, model: str, name: str) -> None:
        self._queue = Queue(keys.rq_queue_name(model), connection=client, serializer=BatchSerializer)
        self._client = client
        self._workers = keys.workers
        self._name = name
        self._worker: SimpleWorker | None = None

    def report(self, *, busy: bool) -> None:
        """Report that the worker is alive, and whether anything is in flight."""
        if self._worker is None:
            # Not before: RQ asks the server already as it makes one, and an engine that has booted must not end because
            # Redis is away just then.
            self._worker = SimpleWorker(
                [self._queue], name=self._name, connection=self._client, serializer=BatchSerializer, worker_ttl=TTL_S
            )
        if not self._client.exists(self._worker.key):
            # RQ refuses to register a name twice; after a pause longer than the TTL the key is gone and the set must be
            # joined again.
            self._worker.register_birth()
        # Workers that were killed stay in RQ's sets for good unless somebody looks. That asks for each worker, so
        # only whoever reported longest ago does it, which is another one each time.
        if self._client.zrange(self._workers, 0, 0) in ([], [self._name.encode()]):
            worker_registration.clean_worker_registry(self._queue)
        state = WorkerStatus.BUSY if busy else WorkerStatus.IDLE
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hset(self._worker.key, mapping={"last_heartbeat": utcformat(datetime.now(UTC)), "state": state})
            pipe.expire(self._worker.key, TTL_S)
            pipe.execute()

    def leave(self) -> None:
        if self._worker is not None:
            self._worker.register_death()
