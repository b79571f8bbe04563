"""Ends the questions of cancelled runs that no worker holds: those in the streams, and those in batches that wait in RQ."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import WatchError

from batcher.leading import Leadership
from wire.codec import decode_batch, decode_question, encode_record
from wire.connection import load_script
from wire.errors import LeaseLostError, MalformedMessageError
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import ErrorDetail, Failure, Question

log = logging.getLogger(__name__)

AT_ONCE = 500


class Canceller:
    """Run by the leading batcher. Questions that a worker holds are ended by that worker."""

    def __init__(self, client: redis.Redis, keys: Keys, leadership: Leadership, *, run_ttl_s: float) -> None:
        self._client = client
        self._keys = keys
        self._leadership = leadership
        self._run_ttl_s = int(run_ttl_s)
        self._publish: Script = client.register_script(load_script("wire", "publish"))

    def end_cancelled(self, queues: Iterable[tuple[str, int]]) -> bool:
        """Write a failure for every queued question of every cancelled run.

        Returns:
            Whether questions were taken out of streams, so that what was read from them before is out of date.

        Raises:
            LeaseLostError: This batcher does not lead any more.
        """
        members: Any = self._client.smembers(self._keys.cancelled)
        runs = {run.decode() for run in members}
        if not runs:
            return False
        queues = list(queues)
        taken = sum(self._end_in_stream(self._keys.questions(*queue), runs) for queue in queues)
        for model in {model for model, _ in queues}:
            self._end_in_batches(model, runs)
        for run in runs:
            self._forget_if_over(run)
        if taken:
            log.info("ended %d queued questions of cancelled runs", taken)
        return taken > 0

    def _end_in_stream(self, stream: str, runs: set[str]) -> int:
        taken, start = 0, "-"
        while True:
            entries: Any = self._client.xrange(stream, start, "+", count=AT_ONCE)
            cancelled = [(entry, fields[b"q"]) for entry, fields in entries if fields.get(b"r", b"").decode("utf-8", "replace") in runs]
            if cancelled:
                self._end([data for _, data in cancelled], remove=(stream, [entry for entry, _ in cancelled]))
                taken += len(cancelled)
            if len(entries) < AT_ONCE:
                return taken
            start = f"({entries[-1][0].decode()}"

    def _end_in_batches(self, model: str, runs: set[str]) -> None:
        batches: Any = self._client.lrange(self._keys.rq_queue(model), 0, -1)
        for batch_id in batches:
            job = RQ_JOB_PREFIX + batch_id.decode("utf-8", "replace")
            if self._client.type(job) != b"hash":
                continue
            data: Any = self._client.hget(job, "data")
            mine = [encoded for encoded in _questions_of(data or b"") if _run_of(encoded) in runs]
            if mine:
                # Whoever claims the batch must look which of its questions have records. Set first: then no moment is without it.
                self._client.hset(job, "recheck", "1")
                self._end(mine, remove=None)

    def _end(self, encoded: Sequence[bytes], remove: tuple[str, list[bytes]] | None) -> None:
        try:
            with self._client.pipeline(transaction=True) as pipe:
                self._leadership.fence(pipe)
                pipe.multi()
                for data in encoded:
                    self._publish_failure(data, pipe)
                if remove is not None:
                    pipe.xdel(remove[0], *remove[1])
                pipe.execute()
        except WatchError as error:
            self._leadership.drop()
            msg = "the leadership changed during a cancellation"
            raise LeaseLostError(msg) from error

    def _publish_failure(self, data: bytes, pipe: Pipeline) -> None:
        question = _decoded(data)
        if question is None:
            return
        keys, run = self._keys, question.run
        failure = Failure(
            run=run,
            index=question.index,
            request_id=question.request_id,
            attempts=0,
            metadata=question.metadata,
            error=ErrorDetail(kind="cancelled", message="its run was cancelled"),
        )
        self._publish(
            keys=[keys.run(run), keys.done(run), keys.records(run), keys.pending, keys.runs],
            args=[run, self._run_ttl_s, question.index, failure.status, len(data), encode_record(failure)],
            client=pipe,
        )

    def _forget_if_over(self, run: str) -> None:
        counts: Any = self._client.hmget(self._keys.run(run), ["accepted", "answered", "failed"])
        if counts[0] is None or int(counts[0]) <= int(counts[1]) + int(counts[2]):
            self._client.srem(self._keys.cancelled, run)


def _questions_of(data: bytes) -> list[bytes]:
    try:
        return decode_batch(data)
    except MalformedMessageError:
        # Not ours to judge: the worker that claims it puts it aside.
        return []


def _run_of(encoded: bytes) -> str | None:
    question = _decoded(encoded)
    return question.run if question else None


def _decoded(encoded: bytes) -> Question | None:
    try:
        return decode_question(encoded)
    except MalformedMessageError:
        return None
