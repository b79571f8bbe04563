"""Finds the question that kills its engine: suspects are halved and run alone until the culprit stands alone.

A batch whose workers died twice is suspect. It is cut in half, and each half is run with nothing beside it. A half that is answered is innocent.
A half whose worker dies is cut again. A single question whose workers died `CONVICTING_DEATHS` times while it was isolated gets a failure with the
evidence. With n questions in flight that takes at most log2(n) + 2 deaths for one culprit; a worker killed from outside costs its questions a
second try, and would have to be killed again each time it holds the same ever smaller part to cost one its answer.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from batcher.handing_over import HandOver
from batcher.leading import Leadership
from wire.codec import decode_batch, decode_question, encode_record
from wire.connection import load_script
from wire.errors import LeaseLostError, MalformedMessageError, NewerMessageError
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import ErrorDetail, Failure, Question

log = logging.getLogger(__name__)

CONVICTING_DEATHS = 2
AT_ONCE = 20


def divide(questions: Sequence[bytes], deaths_alone: int) -> list[Sequence[bytes]]:
    """What to run alone next.

    Args:
        questions: The encoded questions of a suspect batch that have no record yet.
        deaths_alone: How many workers died while they ran them alone, as part of a larger group or by themselves.

    Returns:
        Two halves, the first one larger by at most one; a single question by itself; nothing if there is none, or if it is convicted.
    """
    if len(questions) > 1:
        middle = (len(questions) + 1) // 2
        return [questions[:middle], questions[middle:]]
    return [] if deaths_alone >= CONVICTING_DEATHS else [questions] if questions else []


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A suspect batch as Redis has it. `died`: the workers that did, in order."""

    batch_id: bytes
    attempts: int
    deaths: int
    alone: int
    died: list[str]
    questions: list[tuple[bytes, Question]]

    def history(self) -> dict[str, int | str]:
        """What the parts of this batch inherit."""
        return {"attempts": self.attempts, "deaths": self.deaths, "alone": self.alone, "died": ",".join(self.died)}


class Quarantine:
    """Run by the leading batcher; every change is fenced by its lease."""

    def __init__(self, client: redis.Redis, keys: Keys, leadership: Leadership, hand_over: HandOver, *, run_ttl_s: float) -> None:
        self._client = client
        self._keys = keys
        self._leadership = leadership
        self._hand_over = hand_over
        self._run_ttl_s = int(run_ttl_s)
        self._publish = client.register_script(load_script("wire", "publish"))

    def judge_all(self, models: set[str]) -> None:
        """Divide or convict every suspect batch, up to `AT_ONCE` of each model.

        Raises:
            LeaseLostError: This batcher does not lead any more; the batch at hand was not changed.
        """
        for model in sorted(models):
            suspects: Any = self._client.lrange(self._keys.suspects(model), 0, AT_ONCE - 1)
            for batch_id in suspects:
                self._judge(model, batch_id)

    def _judge(self, model: str, batch_id: bytes) -> None:
        try:
            suspect = self._look_up(batch_id)
        except NewerMessageError as error:
            log.warning("suspect batch %s waits for a newer batcher: %s", batch_id.decode("utf-8", "replace"), error)
            self._put_last(model, batch_id)
            return
        parts = divide([encoded for encoded, _ in suspect.questions], suspect.alone) if suspect else []
        if suspect is not None and not parts:
            # Before the batch is dropped: if this is cut short, the next leader convicts again, and the first record wins.
            self._convict(suspect)
        with self._fenced() as pipe:
            pipe.lrem(self._keys.suspects(model), 1, batch_id)  # type: ignore[arg-type]
            pipe.delete(RQ_JOB_PREFIX + batch_id.decode("utf-8", "replace"))
            for part in parts:
                self._hand_over.isolate(model, part, suspect.history() if suspect else {}, pipe)
        if parts:
            ids, sizes = {"batch": batch_id.decode(), "model": model}, " and ".join(f"{len(part)} questions" for part in parts)
            log.warning("batch %s is suspect; its %s run alone", ids["batch"], sizes, extra=ids)

    def _put_last(self, model: str, batch_id: bytes) -> None:
        """So that those behind it are looked at."""
        with self._fenced() as pipe:
            pipe.lrem(self._keys.suspects(model), 1, batch_id)  # type: ignore[arg-type]
            pipe.rpush(self._keys.suspects(model), batch_id)

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[Pipeline]:
        """A transaction that changes nothing if this batcher does not lead any more: then it raises LeaseLostError."""
        try:
            with self._client.pipeline(transaction=True) as pipe:
                self._leadership.fence(pipe)
                pipe.multi()
                yield pipe
                pipe.execute()
        except WatchError as error:
            self._leadership.drop()
            msg = "the leadership changed during a judgement"
            raise LeaseLostError(msg) from error

    def _look_up(self, batch_id: bytes) -> _Suspect | None:
        """None if there is no such batch, or nothing of it can be read; then a worker has put it aside already.

        Raises:
            NewerMessageError: Some of it is of a wire version to come, and not ours to judge.
        """
        key = RQ_JOB_PREFIX + batch_id.decode("utf-8", "replace")
        found: Any = self._client.hmget(key, ["data", "attempts", "deaths", "alone", "died"])
        data, attempts, deaths, alone, died = found
        try:
            questions = [(encoded, decode_question(encoded)) for encoded in decode_batch(data or b"")]
        except NewerMessageError:
            raise
        except MalformedMessageError as error:
            log.warning("suspect batch %s: %s", key, error)
            return None
        with self._client.pipeline(transaction=False) as pipe:
            for _, question in questions:
                pipe.getbit(self._keys.done(question.run), question.index)
            done = pipe.execute()
        open_ones = [question for question, bit in zip(questions, done, strict=True) if not bit]
        return _Suspect(batch_id, int(attempts or 0), int(deaths or 0), int(alone or 0), (died or b"").decode().split(","), open_ones)

    def _convict(self, suspect: _Suspect) -> None:
        for encoded, question in suspect.questions:
            ids = {"run": question.run, "request": question.request_id, "model": question.model}
            log.error("question %s of run %s kills engines: %d workers died with it", question.request_id, question.run, suspect.deaths, extra=ids)
            message = f"{suspect.deaths} workers died with this question in flight, the last {suspect.alone} with nothing else of others beside it"
            failure = Failure(
                run=question.run,
                index=question.index,
                request_id=question.request_id,
                attempts=suspect.attempts,
                metadata=question.metadata,
                error=ErrorDetail(
                    kind="engine_killed",
                    message=message,
                    evidence={"deaths": suspect.deaths, "deaths_alone": suspect.alone, "workers": list(suspect.died)},
                ),
                v=question.v,
            )
            keys, run = self._keys, question.run
            self._publish(
                keys=[keys.run(run), keys.done(run), keys.records(run), keys.pending, keys.runs],
                args=[run, self._run_ttl_s, question.index, failure.status, len(encoded), encode_record(failure)],
            )
