"""Writes records and ends batches, many at a time, and tries again until Redis has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from gpu_worker.intake import HeldBatch
from wire.codec import encode_record
from wire.connection import RedisAddress, load_script, translated
from wire.errors import QueueUnavailableError
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import Answer, Failure

log = logging.getLogger(__name__)

AT_ONCE = 1000
"""Records in one call; a script keeps Redis to itself while it runs."""
BYTES_AT_ONCE = 4 * 1024 * 1024
"""The same in bytes. Log probabilities make megabytes of an answer, and what takes longer than the time-out to send would be sent for ever."""
GATHER_S = 0.02
"""Between the beginnings of two writes while more is in the engine. An answer every few milliseconds would otherwise cost a round trip each, and its
producer, too; on two cores, that is time that the engine lacks."""
LONGEST_BACKOFF_S = 2.0


class Publisher:
    """Between the engine, which finishes questions one by one, and Redis, which is asked as rarely as possible.

    While one write is on its way, what finishes meanwhile gathers for the next. What is here is bounded by what a worker may hold.

    Args:
        more_comes: Whether other questions are in the engine, so that a record may wait `GATHER_S` for their company.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        address: RedisAddress,
        keys: Keys,
        model: str,
        *,
        run_ttl_s: float,
        more_comes: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._address = address
        self._keys = keys
        self._leases = keys.leases(model)
        self._newer = keys.newer(model)
        self._run_ttl_s = int(run_ttl_s)
        self._more_comes = more_comes
        self._publish_script = client.register_script(load_script("wire", "publish"))
        self._finish_script = client.register_script(load_script("gpu_worker", "finish"))
        self._records: list[tuple[Answer | Failure, int]] = []
        self._finished: list[HeldBatch] = []
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()

    def add(self, record: Answer | Failure, question_bytes: int) -> None:
        """Have a record written soon. `question_bytes`: size of the encoded question, which stops counting as pending."""
        self._records.append((record, question_bytes))
        self._stir()

    def finish(self, batch: HeldBatch) -> None:
        """Have a batch ended, after the records that were added before."""
        self._finished.append(batch)
        self._stir()

    async def flushed(self) -> None:
        """Return when everything added so far is in Redis."""
        await self._nothing.wait()

    async def run(self) -> None:
        """Write for ever."""
        not_before = 0.0
        while True:
            await self._something.wait()
            if (left_s := not_before - time.monotonic()) > 0 and len(self._records) < AT_ONCE and self._more_comes():
                await asyncio.sleep(left_s)
            not_before = time.monotonic() + GATHER_S
            count = _how_many(self._records)
            records, self._records = self._records[:count], self._records[count:]
            # A batch may end only after its last record; those are still to come if not all records fit.
            finished, self._finished = ([], self._finished) if self._records else (self._finished, [])
            await self._write_until_done(records, finished)
            if not self._records and not self._finished:
                self._something.clear()
                self._nothing.set()

    def _stir(self) -> None:
        self._nothing.clear()
        self._something.set()

    async def _write_until_done(self, records: list[tuple[Answer | Failure, int]], finished: list[HeldBatch]) -> None:
        by_run: Mapping[str, list[bytes | int | str]] = _by_run(records)
        backoff_s = 0.05
        while True:
            try:
                with translated(self._address):
                    if by_run:
                        await self.write(by_run)
                        by_run = {}
                    # Only now: Redis may refuse records, for want of memory say, and then their batch is all that is left of the questions.
                    return await self.end(finished) if finished else None
            except QueueUnavailableError as error:
                # Both scripts may safely run twice: the first record wins, and an ended batch has no lease to end.
                log.warning("%d records wait: %s; trying again in %.1f s", len(records), error, backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def write(self, by_run: Mapping[str, list[bytes | int | str]]) -> None:
        """Write records once; `by_run` has them as the script takes them."""
        keys = self._keys
        calls: list[list[bytes | int | str]] = [
            [5, keys.run(run), keys.done(run), keys.records(run), keys.pending, keys.runs, run, self._run_ttl_s, *written]
            for run, written in by_run.items()
        ]
        replies = await self._call(self._publish_script, calls)
        for run, first in zip(by_run, replies, strict=True):
            if first == -1:
                log.warning("run %s is gone (expired); its records are dropped", run, extra={"run": run})

    async def end(self, finished: Sequence[HeldBatch]) -> None:
        """End batches once, those that this worker still holds; what is left of one goes to a worker that can read it.

        Where Redis has lost records of a batch, they are written again before.
        """
        lost = await self._end(finished)
        if not lost:
            return
        for batch, records in lost.items():
            words = "Redis has lost %d records of batch %s, as it was killed; they are written again"
            log.warning(words, len(records), batch.batch_id, extra={"batch": batch.batch_id})
        await self.write(_by_run([record for records in lost.values() for record in records]))
        for batch, records in (await self._end(list(lost))).items():
            words = "batch %s does not end: %d of its records are refused; its lease will lapse"
            log.error(words, batch.batch_id, len(records), extra={"batch": batch.batch_id})

    async def _end(self, finished: Sequence[HeldBatch]) -> dict[HeldBatch, list[tuple[Answer | Failure, int]]]:
        """Returns what Redis has lost of the records of each batch that could not end for that reason."""
        replies = await self._call(self._finish_script, [self._ending_of(batch) for batch in finished])
        lost = {}
        for batch, reply in zip(finished, replies, strict=True):
            outcome, *places = reply
            if outcome == 0:
                words = "batch %s was taken back before it ended; its records count, whoever was first"
                log.warning(words, batch.batch_id, extra={"batch": batch.batch_id})
            elif places:
                lost[batch] = [batch.records[place - 1] for place in places]
        return lost

    def _ending_of(self, batch: HeldBatch) -> list[bytes | int | str]:
        """A call of the script that ends a batch."""
        keys = [self._leases, RQ_JOB_PREFIX + batch.batch_id, self._newer]
        numbers = {run: number for number, run in enumerate(dict.fromkeys(record.run for record, _ in batch.records), 1)}
        for run in numbers:
            keys += [self._keys.accepted(run), self._keys.done(run)]
        written = [part for record, _ in batch.records for part in (numbers[record.run], record.index)]
        return [len(keys), *keys, batch.batch_id, batch.token, batch.newer, *written]

    async def _call(self, script: AsyncScript, calls: Sequence[Sequence[bytes | int | str]]) -> list[Any]:
        try:
            return await self._call_once(script, calls)
        except NoScriptError:
            # Redis was started anew. Asking it every time, as redis-py does in a pipeline, would be a round trip more.
            await self._client.script_load(script.script)
            return await self._call_once(script, calls)

    async def _call_once(self, script: AsyncScript, calls: Sequence[Sequence[bytes | int | str]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", script.sha, *call)
            replies: list[Any] = await pipe.execute()
            return replies


def _how_many(records: Sequence[tuple[Answer | Failure, int]]) -> int:
    """Of these, go in one call: at least one."""
    size = 0
    for count, (record, _) in enumerate(records[:AT_ONCE]):
        size += _size_of(record)
        if count and size > BYTES_AT_ONCE:
            return count
    return min(len(records), AT_ONCE)


def _size_of(record: Answer | Failure) -> int:
    """Roughly, in bytes; cheap for those that are nothing but text."""
    if isinstance(record, Answer) and not (record.details or record.texts or record.metadata):
        return len(record.text)
    return len(encode_record(record))


def _by_run(records: Sequence[tuple[Answer | Failure, int]]) -> Mapping[str, list[bytes | int | str]]:
    found: dict[str, list[bytes | int | str]] = defaultdict(list)
    for record, question_bytes in records:
        found[record.run] += (record.index, record.status, question_bytes, encode_record(record))
    return found
