"""The hand-over: questions leave the stream and become RQ jobs in one step that only the leader can make."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.commands.core import Script
from rq import Queue
from rq.job import Job

from batcher.leadership import Leadership
from batcher.packing import Waiting
from wire.codec import BATCH_FUNCTION, BatchSerializer, encode_batch
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.scripts import load_script

AT_ONCE = 1000
"""Entries taken out by one command: Lua hands some 8 000 values to one at most."""


class BatchJob(Job):
    """An RQ job that carries a batch."""

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 (RQ's signature)
        # RQ compresses what it finds here: half of the hand-over's time, and every reader would have to guard against bombs.
        data, self.data = self.data, b""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        fields["data"] = self.data = data
        return fields


class QueueOrder:
    """Whether a batch may simply stand at the end of its queue, which is so as long as all that wait there are of one run."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[bytes, int]] = {}
        self._waiting: dict[str, float] = {}

    def matters(self, queue: str, run: bytes) -> bool:
        """To be asked once for each batch that is handed over."""
        last, count = self._last.get(queue, (run, 0))
        count = count if last == run else 0
        self._last[queue] = (run, count + 1)
        return count < self._waiting.get(queue, math.inf)

    def note(self, queue: str, waiting: int) -> None:
        """How many batches waited after a hand-over."""
        self._waiting[queue] = waiting


class HandOver:
    """Puts batches into RQ. One per batcher; not safe for several threads."""

    def __init__(self, client: redis.Redis, rq_client: redis.Redis, keys: Keys, leadership: Leadership) -> None:
        self._client = client
        self._rq_client = rq_client
        self._keys = keys
        self._leadership = leadership
        self._place: Script = client.register_script(load_script("batcher", "place"))
        self._queues: dict[str, Queue] = {}
        self._order = QueueOrder()

    def commit(
        self, model: str, priority: int, batches: Sequence[Sequence[Waiting]], runs: Sequence[bytes] = ()
    ) -> int:
        """Hand over batches of one queue, all or none.

        In the RQ queue a batch stands before all of lower priorities, and among those of its own where it is its run's turn.

        Args:
            runs: For each batch, whose turn it takes; none: each stands behind all of its priority.

        Returns:
            How many batch jobs of the model wait now.

        Raises:
            LeaseLostError: This batcher does not lead any more; nothing was changed.
        """
        queue = self._queue(model)
        pipe = self._client.pipeline()
        for batch, run in zip(batches, runs or [b""] * len(batches), strict=True):
            self._enqueue(queue, batch, pipe, priority, run)
            for start in range(0, len(batch), AT_ONCE):
                pipe.xdel(
                    self._keys.questions(model, priority),
                    *(question.entry_id for question in batch[start : start + AT_ONCE]),
                )
        pipe.llen(queue.key)
        waiting = int(self._leadership.commit(pipe, {queue.key: "list"}))
        self._order.note(queue.name, waiting)
        return waiting

    def isolate(self, model: str, questions: Sequence[bytes], history: Mapping[str, int | str], pipe: Pipeline) -> None:
        """Among a caller's changes: make a batch that is run with nothing beside it.

        Args:
            questions: Encoded.
            history: Fields of the batch that these questions come from: attempts, deaths and the like.
        """
        job = self._job(questions, self._keys.rq_queue_name(model))
        job.save(pipeline=pipe)
        fields: dict[Any, Any] = {**history, "questions": len(questions), "status": "queued"}
        pipe.hset(job.key, mapping=fields)
        pipe.rpush(self._keys.isolated(model), job.id)

    def _enqueue(self, queue: Queue, batch: Sequence[Waiting], pipe: Pipeline, priority: int, run: bytes) -> None:
        job = self._job([question.data for question in batch], queue.name)
        queue.enqueue_job(job, pipeline=pipe)
        fields: dict[Any, Any] = {"questions": len(batch), "turn": run, **({"priority": priority} if priority else {})}
        pipe.hset(job.key, mapping=fields)
        if self._order.matters(queue.name, run) or priority:
            # RQ knows the back and the front of a queue; in the same transaction nobody sees it in between.
            self._place(keys=[queue.key], args=[job.id, priority, run, RQ_JOB_PREFIX], client=pipe)

    def _job(self, questions: Sequence[bytes], queue_name: str) -> Job:
        job = BatchJob.create(
            func=BATCH_FUNCTION,
            id=uuid.uuid4().hex,
            connection=self._rq_client,
            serializer=BatchSerializer,
            # RQ would otherwise describe the job by the text of all its arguments.
            description=f"{len(questions)} questions for {queue_name}",
            origin=queue_name,
        )
        job.data = encode_batch(questions)
        return job

    def _queue(self, model: str) -> Queue:
        if model not in self._queues:
            name = self._keys.rq_queue_name(model)
            self._queues[model] = Queue(
                name, connection=self._rq_client, serializer=BatchSerializer, job_class=BatchJob
            )
        return self._queues[model]
