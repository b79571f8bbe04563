"""Ends questions that nobody wants any more and that no worker holds.

Those of cancelled runs, and those whose deadline has passed. They lie in the streams and in the batches that wait in
RQ. Going through them may take seconds, so it is done a step at a time, between hand-overs.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import redis

from batcher.leadership import Leadership
from batcher.maintenance.deadline_marks import DeadlineMarks
from batcher.maintenance.unwanted import Unwanted, failure_of
from batcher.stream_reader import QueueId
from wire.codec import decode_batch, decode_question, encode_batch, encode_record, whole_number
from wire.errors import MalformedMessageError
from wire.failures import brief
from wire.keys import RQ_JOB_PREFIX, Keys, parse_run_member
from wire.messages import ErrorDetail, Question

log = logging.getLogger(__name__)

QUESTIONS_PER_READ = 500
RUNS_AT_ONCE = 1000
BYTES_PER_READ = 16 * 1024 * 1024
BATCHES_AT_ONCE = 16
REST_FACTOR = 20
"""Going through streams for deadlines may take one part in this many of the batcher's time."""
LEASED_AGAIN_S = 10.0

_Ended = tuple[Question, int, ErrorDetail]
"""A question, the size of its encoding, and why it ends."""


class ExpirySweep:
    """Run by the leading batcher. Questions that a worker holds are ended by that worker.

    Args:
        forget: Told what was taken out of a stream, by entry ids, before anybody could hand it over.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        leadership: Leadership,
        *,
        run_ttl_s: float,
        forget: Callable[[QueueId, Collection[bytes]], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._run_ttl_s = int(run_ttl_s)
        self._forget = forget
        self._end_questions = leadership.fenced("batcher.maintenance", "end", "publish")
        self._marks = DeadlineMarks(client, keys)
        self._largest_bytes = BYTES_PER_READ // 32
        self.restart()

    def restart(self) -> None:
        """Start over: another batcher may have led meanwhile and stopped half way."""
        self._walk: Iterator[None] | None = None
        # With when they were cancelled: the same questions, submitted again, are a run of the same id.
        self._walked: set[tuple[tuple[str, str], bytes]] = set()
        self._marks.restart()

    def look(self, queues: Collection[QueueId]) -> None:
        """See whether there is anything to end; `go_on` then does it."""
        if self._walk is not None:
            return
        with self._client.pipeline(transaction=False) as pipe:
            pipe.srandmember(self._keys.cancelled, RUNS_AT_ONCE)
            pipe.zrange(self._keys.expiring, 0, -1, withscores=True)
            pipe.time()
            members, marked, clock = pipe.execute()
        now = clock[0] + clock[1] / 1e6
        cancelled = self._not_over(members)
        due = self._marks.due(marked, now)
        if not cancelled and not due:
            return
        new = cancelled.items() - self._walked
        models = {model for model, _ in (queues if cancelled else due)}
        self._walk = self._through(list(queues) if new else due, models, Unwanted(cancelled.keys(), now), due)
        # Should it not get to its end, `restart` forgets this.
        self._walked |= new

    def go_on(self, budget_s: float) -> bool:
        """Do part of the work, for about `budget_s` seconds.

        Returns:
            Whether there is more to do at once.

        Raises:
            LeaseLostError: This batcher does not lead any more.
        """
        until = time.monotonic() + budget_s
        while self._walk is not None and time.monotonic() < until:
            try:
                next(self._walk)
            except StopIteration:
                self._walk = None
        return self._walk is not None

    def _through(
        self, streams: Sequence[QueueId], models: Collection[str], unwanted: Unwanted, due: Sequence[QueueId]
    ) -> Iterator[None]:
        """Go through streams, then through batches: what is handed over meanwhile is then found in its batch."""
        began = time.monotonic()
        earliest: dict[QueueId, float] = {}
        if due:
            self._marks.begin(due)
        ended = 0
        for queue in streams:
            for count in self._through_stream(queue, unwanted, earliest):
                ended += count
                yield
        for model in sorted(models):
            for queue_key in (self._keys.rq_queue(model), self._keys.isolated(model)):
                for count in self._through_batches(model, queue_key, unwanted, earliest):
                    ended += count
                    yield
        for model in {model for model, _ in due}:
            self._note_leased(model, unwanted.now, earliest)
        for queue in due:
            self._marks.mark(queue, earliest.get(queue))
        self._marks.rest(REST_FACTOR * (time.monotonic() - began))
        if ended:
            log.info("ended %d queued questions of cancelled runs or past their deadline", ended)

    def _through_stream(self, queue: QueueId, unwanted: Unwanted, earliest: dict[QueueId, float]) -> Iterator[int]:
        stream, start = self._keys.questions(*queue), "-"
        while True:
            count = max(1, min(QUESTIONS_PER_READ, BYTES_PER_READ // self._largest_bytes))
            entries: Any = self._client.xrange(stream, start, "+", count=count)
            taken: dict[bytes, _Ended] = {}
            for entry_id, fields in entries:
                deadline = _number(fields.get(b"d"))
                data = fields.get(b"q", b"")
                # What cannot be read goes the way of all such things: a worker puts it aside.
                question = (
                    _decoded(data)
                    if unwanted.may_end(fields.get(b"r", b"").decode("utf-8", "replace"), deadline)
                    else None
                )
                error = unwanted.judge(question) if question else None
                if error and question:
                    taken[entry_id] = (question, len(data), error)
                elif deadline is not None and not error:
                    earliest[queue] = min(deadline, earliest.get(queue, math.inf))
            if entries:
                self._largest_bytes = max(1024, *(len(fields.get(b"q", b"")) for _, fields in entries))
            if taken:
                self._end(list(taken.values()), [stream, stream], "", "", 0, len(taken), *taken)
                self._forget(queue, taken.keys())
            yield len(taken)
            if len(entries) < count:
                return
            start = f"({entries[-1][0].decode()}"

    def _through_batches(
        self, model: str, queue_key: str, unwanted: Unwanted, earliest: dict[QueueId, float]
    ) -> Iterator[int]:
        waiting: Any = self._client.lrange(queue_key, 0, -1)
        for start in range(0, len(waiting), BATCHES_AT_ONCE):
            ended = 0
            for batch_id, encoded in self._batches(waiting[start : start + BATCHES_AT_ONCE]):
                taken, kept = [], []
                for data in encoded:
                    question = _decoded(data)
                    error = unwanted.judge(question) if question else None
                    if question and error:
                        taken.append((question, len(data), error))
                        continue
                    kept.append(data)
                    if question and question.deadline is not None:
                        queue = (model, question.priority)
                        earliest[queue] = min(question.deadline, earliest.get(queue, math.inf))
                if taken:
                    self._end_in_batch(queue_key, batch_id, taken, kept)
                    ended += len(taken)
            yield ended

    def _note_leased(self, model: str, now: float, earliest: dict[QueueId, float]) -> None:
        """A batch that a worker holds may come back when nobody else is there to look at its deadlines."""
        leased: Any = self._client.zrange(self._keys.leases(model), 0, -1)
        for start in range(0, len(leased), BATCHES_AT_ONCE):
            for _, encoded in self._batches(leased[start : start + BATCHES_AT_ONCE]):
                for question in filter(None, map(_decoded, encoded)):
                    if question.deadline is not None:
                        queue = (model, question.priority)
                        earliest[queue] = min(
                            max(question.deadline, now + LEASED_AGAIN_S), earliest.get(queue, math.inf)
                        )

    def _batches(self, ids: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
        """The batches of these ids that can be read, with what is in them; the others are for a worker to put aside."""
        names = [batch_id.decode("utf-8", "replace") for batch_id in ids]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(RQ_JOB_PREFIX + name, "data")
            # Foreign keys under a job's name answer with an error of their own.
            found = pipe.execute(raise_on_error=False)
        for name, data in zip(names, found, strict=True):
            try:
                encoded = decode_batch(data) if isinstance(data, bytes) else []
            except MalformedMessageError:
                continue
            yield name, encoded

    def _end_in_batch(self, queue_key: str, batch_id: str, taken: Sequence[_Ended], kept: Sequence[bytes]) -> None:
        rest = encode_batch(kept) if kept else b""
        self._end(taken, [queue_key, RQ_JOB_PREFIX + batch_id], batch_id, rest, len(kept), 0)

    def _end(self, ended: Sequence[_Ended], keys: Sequence[str], *out: bytes | str | int) -> None:
        """Write their records, and take them out of where they were, in one step.

        Args:
            keys: The stream, twice, or the list and the job of the batch that they are in.
            out: Arguments 2 to 5 of `end.lua` and the entries.
        """
        by_run: dict[tuple[str, str], list[bytes | int | str]] = defaultdict(list)
        for question, size, error in ended:
            failure = failure_of(question, error)
            by_run[question.run, question.epoch] += (question.index, brief(failure), size, encode_record(failure))
        names, args = [self._keys.pending, self._keys.runs, *keys], [self._run_ttl_s, *out]
        for (run, epoch), records in by_run.items():
            names += (self._keys.run(run), self._keys.done(run), self._keys.records(run))
            args += (run, epoch, len(records), *records)
        self._end_questions(names, args)

    def _not_over(self, members: Collection[bytes]) -> dict[tuple[str, str], bytes]:
        """Those of the cancelled runs that still have questions somewhere, each with when it was cancelled.

        The others need no looking for. What is left of a run that was forgotten is answered for nobody.
        """
        named = [parse_run_member(member.decode("utf-8", "replace")) for member in members]
        with self._client.pipeline(transaction=False) as pipe:
            for run, _ in named:
                pipe.hmget(self._keys.run(run), ["accepted", "answered", "failed", "cancelled", "epoch"])
            found = pipe.execute()
        going, over = {}, []
        for member, (run, epoch), (*numbers, cancelled, current) in zip(members, named, found, strict=True):
            accepted, answered, failed = map(whole_number, numbers)
            if accepted <= answered + failed or (current or b"") != epoch.encode():
                over.append(member)
            else:
                going[run, epoch] = cancelled or b""
        if over:
            self._client.srem(self._keys.cancelled, *over)
        return going


def _decoded(encoded: bytes) -> Question | None:
    try:
        return decode_question(encoded)
    except MalformedMessageError:
        return None


def _number(text: bytes | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return None if math.isnan(number) else number
