"""Writes records and ends batches, many at a time, and tries again until Redis has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis.asyncio
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from gpu_worker.claims import HeldBatch
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.codec import encode_record
from wire.errors import QueueUnavailableError
from wire.failures import brief
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import Answer, Failure
from wire.redis_errors import translated
from wire.scripts import load_script

log = logging.getLogger(__name__)

RECORDS_PER_WRITE = 1000
"""Records in one call; a script keeps Redis to itself while it runs."""
BYTES_PER_WRITE = 4 * 1024 * 1024
"""The same in bytes.

Log probabilities make megabytes of an answer, and what takes longer than the time-out to send would be sent for ever.
"""
GATHER_S = 0.02
"""Between the beginnings of two writes while more is in the engine.

An answer every few milliseconds would otherwise cost a round trip each, and its
producer, too; on two cores, that is time that the engine lacks."""


RunEpoch = tuple[str, str]
"""(run, epoch)."""


class Written(NamedTuple):
    """A record as it is sent: of which run, how `publish.lua` takes it, and its size in bytes."""

    run: RunEpoch
    fields: tuple[bytes | int | str, ...]
    size: int


class Publisher:
    """Between the engine, which finishes questions one by one, and Redis, which is asked as rarely as possible.

    While one write is on its way, what finishes meanwhile gathers for the next. What is here is bounded by what a
    worker may hold, as long as the worker begins nothing while `is_behind`.

    Args:
        more_comes: Whether other questions are in the engine, so that a record may wait `GATHER_S` for their company.
        caught_up: Called when `is_behind` has ceased to be so.
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
        caught_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._address = address
        self._keys = keys
        self._leases = keys.leases(model)
        self._newer = keys.newer(model)
        self._run_ttl_s = int(run_ttl_s)
        self._more_comes = more_comes
        self._tell_caught_up = caught_up
        self._publish_script = client.register_script(load_script("wire", "publish"))
        self._finish_script = client.register_script(load_script("gpu_worker", "finish"))
        self._records: list[Written] = []
        self._bytes = 0
        self._finished: list[HeldBatch] = []
        self._ending: list[HeldBatch] = []
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()

    def add(self, record: Answer | Failure, question_bytes: int, encoded: bytes | None = None) -> None:
        """Have a record written soon.

        `question_bytes`: size of the encoded question, which stops counting as pending. `encoded`: the record, if that
        is known already.
        """
        written = _written(record, question_bytes, encoded)
        self._records.append(written)
        self._bytes += written.size
        self._stir()

    def finish(self, batch: HeldBatch) -> None:
        """Have a batch ended, after the records that were added before."""
        self._finished.append(batch)
        self._stir()

    @property
    def is_behind(self) -> bool:
        """Whether more waits than one write takes: the engine is faster than the way to Redis."""
        return len(self._records) > RECORDS_PER_WRITE or self._bytes > BYTES_PER_WRITE

    @property
    def unended(self) -> list[HeldBatch]:
        """Batches that are finished here and not yet in Redis: until then their leases are to be renewed."""
        return [*self._ending, *self._finished]

    async def flushed(self) -> None:
        """Return when everything added so far is in Redis."""
        await self._nothing.wait()

    async def run(self) -> None:
        """Write for ever."""
        not_before = 0.0
        while True:
            await self._something.wait()
            if (
                (left_s := not_before - time.monotonic()) > 0
                and len(self._records) < RECORDS_PER_WRITE
                and self._more_comes()
            ):
                await asyncio.sleep(left_s)
            not_before = time.monotonic() + GATHER_S
            # What goes in one call: at least one record, if there is any.
            was_behind = self.is_behind
            count = _how_many(self._records)
            records, self._records = self._records[:count], self._records[count:]
            self._bytes -= sum(written.size for written in records)
            if was_behind and not self.is_behind:
                self._tell_caught_up()
            # A batch may end only after its last record; those are still to come if not all records fit.
            self._ending, self._finished = ([], self._finished) if self._records else (self._finished, [])
            await self._write_until_done(records, self._ending)
            self._ending = []
            if not self._records and not self._finished:
                self._something.clear()
                self._nothing.set()

    def _stir(self) -> None:
        self._nothing.clear()
        self._something.set()

    async def _write_until_done(self, records: Sequence[Written], finished: Sequence[HeldBatch]) -> None:
        by_run: Mapping[RunEpoch, list[bytes | int | str]] = _by_run(records)
        backoff = Backoff(first_s=0.05)
        while True:
            try:
                with translated(self._address):
                    if by_run:
                        await self.write(by_run)
                        by_run = {}
                    # Only now: Redis may refuse records, for want of memory say, and then their batch is all that is
                    # left of the questions.
                    return await self.end(finished) if finished else None
            except QueueUnavailableError as error:
                # Both scripts may safely run twice: the first record wins, and an ended batch has no lease to end.
                pause_s = backoff.next_s()
                log.warning("%d records wait: %s; trying again in %.1f s", len(records), error, pause_s)
                await asyncio.sleep(pause_s)

    async def write(self, by_run: Mapping[RunEpoch, list[bytes | int | str]]) -> None:
        """Write records once; `by_run` has them as the script takes them."""
        keys = self._keys
        calls: list[list[bytes | int | str]] = [
            [
                5,
                keys.run(run),
                keys.done(run),
                keys.records(run),
                keys.pending,
                keys.runs,
                run,
                self._run_ttl_s,
                epoch,
                *written,
            ]
            for (run, epoch), written in by_run.items()
        ]
        replies = await self._call(self._publish_script, calls)
        for (run, _), first in zip(by_run, replies, strict=True):
            if first == -1:
                log.warning("run %s is gone (expired or forgotten); its records are dropped", run, extra={"run": run})

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
        await self.write(_by_run([_written(*record) for records in lost.values() for record in records]))
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
        numbers = {
            run: number
            for number, run in enumerate(dict.fromkeys((record.run, record.epoch) for record, _ in batch.records), 1)
        }
        for run, _ in numbers:
            keys += [self._keys.run(run), self._keys.accepted(run), self._keys.done(run)]
        written = [part for record, _ in batch.records for part in (numbers[record.run, record.epoch], record.index)]
        return [
            len(keys),
            *keys,
            batch.batch_id,
            batch.token,
            batch.newer,
            len(numbers),
            *(epoch for _, epoch in numbers),
            *written,
        ]

    async def _call(self, script: AsyncScript, calls: Sequence[Sequence[bytes | int | str]]) -> list[Any]:
        try:
            return await self._call_once(script, calls)
        except NoScriptError:
            # Redis was restarted. Asking it every time, as redis-py does in a pipeline, would be a round trip more.
            await self._client.script_load(script.script)
            return await self._call_once(script, calls)

    async def _call_once(self, script: AsyncScript, calls: Sequence[Sequence[bytes | int | str]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", script.sha, *call)
            replies: list[Any] = await pipe.execute()
            return replies


def _how_many(records: Sequence[Written]) -> int:
    """Of these, go in one call: at least one."""
    size = 0
    for count, written in enumerate(records[:RECORDS_PER_WRITE]):
        size += written.size
        if count and size > BYTES_PER_WRITE:
            return count
    return min(len(records), RECORDS_PER_WRITE)


def _written(record: Answer | Failure, question_bytes: int, encoded: bytes | None = None) -> Written:
    if encoded is None:
        encoded = encode_record(record)
    return Written((record.run, record.epoch), (record.index, brief(record), question_bytes, encoded), len(encoded))


def _by_run(records: Sequence[Written]) -> Mapping[RunEpoch, list[bytes | int | str]]:
    found: dict[RunEpoch, list[bytes | int | str]] = defaultdict(list)
    for written in records:
        found[written.run] += written.fields
    return found
