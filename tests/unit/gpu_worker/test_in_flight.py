"""What becomes of the questions of a batch, whatever goes wrong beside the engine."""

from __future__ import annotations

import asyncio

import redis.asyncio

from gpu_worker.claims import HeldBatch
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.in_flight import InFlight
from gpu_worker.outcome import RetryPolicy
from gpu_worker.publisher import Publisher
from gpu_worker.reports.worker_report import Report
from tests.builders import a_question
from tests.eventually import until
from tests.processes import PATIENCE_S
from wire.address import RedisAddress
from wire.clock import ServerClock
from wire.keys import Keys
from wire.messages import Failure, Question


class Faulty(InFlight):
    """Has a bug that one question hits before it is in the engine."""

    def _is_unwanted(self, question: Question) -> bool:
        if question.request_id == "odd":
            raise RuntimeError("a bug")
        return super()._is_unwanted(question)


async def test_a_bug_that_one_question_hits_ends_it_and_its_batch(caplog: object) -> None:
    """The question fails with what was raised, and its neighbour is answered.

    The batch is finished instead of being renewed for ever.
    """
    del caplog
    engine = StubEngine(StubOptions())
    publisher = Publisher(redis.asyncio.Redis(), RedisAddress("redis://nowhere"), Keys(), "stub", run_ttl_s=60)
    in_flight = Faulty(
        engine,
        publisher,
        ServerClock(),
        RetryPolicy(10.0),
        "w",
        Report("stub", "stub", 4),
        left=lambda: None,
        engine_died=lambda _: None,
    )
    batch = HeldBatch("b", "token", 1, [(a_question("odd"), 10), (a_question("even", index=1), 10)])
    await engine.start()

    in_flight.begin(batch)
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: not in_flight.batches)
    await engine.stop()

    records = {record.request_id: record for record, _ in batch.records}
    failed = records["odd"]
    assert isinstance(failed, Failure)
    assert (failed.error.kind, failed.error.message) == ("internal_error", "RuntimeError: a bug")
    assert records["even"].status == "answered"
    assert publisher.unended == [batch]
