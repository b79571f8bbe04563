"""The hand-over: questions leave the stream and become RQ jobs in one step that only the leader can make."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any

import redis
from rq import Queue
from rq.job import Job, JobStatus

from batcher.leadership import Leadership
from batcher.packing import Waiting
from wire.codec import BATCH_FUNCTION, BatchSerializer, encode_batch
from wire.keys import RQ_JOB_PREFIX, RQ_QUEUES, Keys


class BatchJob(Job):
    """An RQ job that carries a batch."""

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 (RQ's signature)
        # RQ compresses what it finds here: half of the hand-over's time, and every reader would have to guard against
        # bombs.
        data, self.data = self.data, b""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        fields["data"] = self.data = data
        return fields


class QueueOrder:
    """Whether a batch may simply stand at the end of its queue: it may while all that wait there are of one run."""

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


def job_fields(questions: Sequence[bytes], queue: str, connection: redis.Redis, **ours: str | int | bytes) -> list[Any]:
    """A batch as RQ stores a job: name, value, name, value ...

    Args:
        queue: Its queue's name for RQ.
        ours: Further fields, which RQ passes over.
    """
    job = BatchJob.create(
        func=BATCH_FUNCTION,
        connection=connection,
        serializer=BatchSerializer,
        # RQ would otherwise describe the job by the text of all its arguments.
        description=f"{len(questions)} questions for {queue}",
        origin=queue,
        status=JobStatus.QUEUED,
        timeout=Queue.DEFAULT_TIMEOUT,
    )
    job.enqueued_at = job.created_at
    job.data = encode_batch(questions)
    fields = {**job.to_dict(), "questions": len(questions), **ours}
    return [word for pair in fields.items() for word in pair]


def batch_id() -> str:
    """A new one: RQ's job id."""
    return uuid.uuid4().hex


class HandOver:
    """Puts batches into RQ. One per batcher; not safe for several threads."""

    def __init__(self, client: redis.Redis, keys: Keys, leadership: Leadership) -> None:
        self._client = client
        self._keys = keys
        self._hand_over = leadership.fenced("batcher", "handover")
        self._order = QueueOrder()

    def commit(
        self, model: str, priority: int, batches: Sequence[Sequence[Waiting]], runs: Sequence[bytes] = ()
    ) -> int:
        """Hand over batches of one queue, all or none.

        In the RQ queue a batch stands before all of lower priorities, and among those of its own where it is its run's
        turn.

        Args:
            runs: For each batch, whose turn it takes; none: each stands behind all of its priority.

        Returns:
            How many batch jobs of the model wait now.

        Raises:
            LeaseLostError: This batcher does not lead any more; nothing was changed.
        """
        queue, entries = self._keys.rq_queue_name(model), [question.entry_id for batch in batches for question in batch]
        ids: list[str] = []
        args: list[Any] = [priority, RQ_JOB_PREFIX, len(entries), *entries]
        for batch, run in zip(batches, runs or [b""] * len(batches), strict=True):
            ids.append(batch_id())
            fields = self._fields(batch, queue, priority, run)
            args += [ids[-1], run, int(self._order.matters(queue, run) or priority > 0), len(fields), *fields]
        keys = [self._keys.rq_queue(model), self._keys.questions(model, priority), RQ_QUEUES]
        waiting = int(self._hand_over([*keys, *(RQ_JOB_PREFIX + one for one in ids)], args))
        self._order.note(queue, waiting)
        return waiting

    def _fields(self, batch: Sequence[Waiting], queue: str, priority: int, run: bytes) -> list[Any]:
        ours: dict[str, Any] = {"turn": run, **({"priority": priority} if priority else {})}
        return job_fields([question.data for question in batch], queue, self._client, **ours)
