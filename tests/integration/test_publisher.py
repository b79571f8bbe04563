"""Records and the ends of batches reach Redis in that order, however often it refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.claims import HeldBatch
from gpu_worker.publisher import Publisher, RunEpoch
from tests.builders import a_question, an_answer
from tests.processes import PATIENCE_S
from wire.address import RedisAddress
from wire.codec import encode_record
from wire.errors import QueueUnavailableError
from wire.failures import brief
from wire.keys import Keys
from wire.messages import ErrorDetail, Failure
from wire.scripts import load_script

KEYS = Keys()


class RefusedOnce(Publisher):
    """Its first write is refused, as by a Redis without memory; it then waits to be let through."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 (passed on)
        super().__init__(*arguments, **options)
        self.refused, self.let_through = asyncio.Event(), asyncio.Event()

    async def write(self, by_run: Mapping[RunEpoch, list[bytes | int | str]]) -> None:
        if not self.refused.is_set():
            self.refused.set()
            raise QueueUnavailableError("out of memory")
        await self.let_through.wait()
        await super().write(by_run)


async def test_a_batch_outlives_records_that_redis_refuses(redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """The batch is all that is left of its questions until their records are written; then it ends."""
    client.hset("rq:job:b1", mapping={"lease_token": "t"})
    client.hset(KEYS.run("run-1"), "accepted", 1)
    client.setbit(KEYS.accepted("run-1"), 0, 1)
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as aclient:
        writer = RefusedOnce(aclient, RedisAddress(redis_server.url), KEYS, "stub", run_ttl_s=60)
        writing = asyncio.create_task(writer.run())
        writer.add(an_answer("q1", index=0), 100)
        writer.finish(HeldBatch("b1", "t", 1, [(a_question("q1"), 100)]))

        async with asyncio.timeout(PATIENCE_S):
            await writer.refused.wait()
            await asyncio.sleep(0.1)  # It pauses, and tries again.
            assert client.exists("rq:job:b1")
            assert not client.exists(KEYS.records("run-1"))
            writer.let_through.set()
            await writer.flushed()
        writing.cancel()

    assert client.xlen(KEYS.records("run-1")) == 1
    assert not client.exists("rq:job:b1")


def test_any_number_of_records_is_written_in_one_call(client: redis.Redis) -> None:
    """Each question that was asked gets the first of its records.

    What nobody asked gets none, next to them or far beyond.
    """
    asked = 2500
    for index in range(asked):
        client.setbit(KEYS.accepted("run-1"), index, 1)
    client.hset(KEYS.run("run-1"), "accepted", asked)
    publish = client.register_script(load_script("wire", "publish"))
    keys = [KEYS.run("run-1"), KEYS.done("run-1"), KEYS.records("run-1"), KEYS.pending, KEYS.runs]
    records: list[Any] = []
    for index in (*range(asked + 1), 2**32 - 1, *range(0, asked, 2)):
        records += [index, "answered", 1, encode_record(an_answer(f"q{index}", index=index))]

    first, again = (publish(keys=keys, args=["run-1", 60, "", *records]) for _ in range(2))

    assert (first, again) == (asked, 0)
    assert client.xlen(KEYS.records("run-1")) == client.bitcount(KEYS.done("run-1")) == asked
    assert client.hmget(KEYS.run("run-1"), "answered", "regenerated") == [b"2500", b"5000"]


async def test_records_that_redis_lost_are_written_again_before_their_batch_ends(
    redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis is killed before its last writes are in its file.

    What it lost of a batch its worker still has, as long as the batch has not ended.
    """
    batch = HeldBatch("b1", "t", 1, [(a_question(f"q{index}", index=index), 100) for index in range(3)])
    batch.records += [(an_answer(f"q{index}", index=index), 100) for index in range(3)]
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as aclient:
        writer = Publisher(aclient, RedisAddress(redis_server.url), KEYS, "stub", run_ttl_s=60)
        await aclient.hset("rq:job:b1", mapping={"lease_token": "t"})
        await aclient.hset(KEYS.run("run-1"), mapping={"accepted": 2})
        # The third was never accepted: that it has no record is no reason to continue for ever.
        await aclient.set(KEYS.accepted("run-1"), b"\xc0")
        # A server whose disk is slow answers first and writes its file up to 2 s later.
        async with asyncio.timeout(PATIENCE_S):
            while (await aclient.info("persistence"))["aof_buffer_length"]:
                await asyncio.sleep(0.01)
        (log,) = Path(redis_server.url.removeprefix("unix://")).parent.rglob("*.aof")
        length = log.stat().st_size
        await writer.write(
            {
                ("run-1", ""): [
                    part
                    for record, size in batch.records
                    for part in (record.index, "answered", size, encode_record(record))
                ]
            }
        )
        assert await aclient.xlen(KEYS.records("run-1")) == 2

        assert redis_server.process is not None
        redis_server.process.kill()
        redis_server.process.wait()
        os.truncate(log, length)
        redis_server.start()
        await aclient.connection_pool.disconnect()
        assert await aclient.xlen(KEYS.records("run-1")) == 0
        await writer.end([batch])

        assert await aclient.xlen(KEYS.records("run-1")) == 2
        assert await aclient.hget(KEYS.run("run-1"), "answered") == b"2"
        assert not await aclient.exists("rq:job:b1")
    assert "Redis has lost 2 records of batch b1" in caplog.text


def test_a_run_counts_its_failures_by_kind(client: redis.Redis) -> None:
    """Each once, with how the last of its kind begins; their number is bounded, whoever writes them."""
    for index in range(203):
        client.setbit(KEYS.accepted("run-1"), index, 1)
    client.hset(KEYS.run("run-1"), "accepted", 203)
    client.zadd(KEYS.runs, {"run-1": 1})
    publish = client.register_script(load_script("wire", "publish"))
    keys = [KEYS.run("run-1"), KEYS.done("run-1"), KEYS.records("run-1"), KEYS.pending, KEYS.runs]
    failures = [a_failure("prompt_too_long", "it has 9 tokens\nand \ud800"), a_failure("prompt_too_long", "x" * 9000)]
    failures += [a_failure(f"of-a-stranger-{number}", "") for number in range(200)]
    records: list[Any] = [202, brief(an_answer("q")), 1, b"an answer"]
    for index, failure in enumerate(failures):
        records += [index, brief(failure), 1, b"a failure"]

    for part in (records[:8], records, records):
        publish(keys=keys, args=["run-1", 60, "", *part])

    (run,) = read_status(client, KEYS).runs
    assert (run.answered, run.failed, run.failures["prompt_too_long"]) == (1, 202, 2)
    assert run.failure_examples["prompt_too_long"] == "x" * 300
    assert len(run.failures) < 70


def a_failure(kind: str, message: str) -> Failure:
    """One of that kind."""
    return Failure(run="run-1", index=0, request_id="q", error=ErrorDetail(kind=kind, message=message))
