"""When records are written: as soon as somebody waits for them, and otherwise in company."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
import redis.asyncio

from gpu_worker.publisher import Publisher, RunEpoch
from tests.builders import an_answer
from wire.address import RedisAddress
from wire.keys import Keys


class Written(Publisher):
    """Counts the records of each write, which always succeeds."""

    def __init__(self, *, more_comes: bool) -> None:
        super().__init__(
            redis.asyncio.Redis(),
            RedisAddress("redis://nowhere"),
            Keys(),
            "stub",
            run_ttl_s=60,
            more_comes=lambda: more_comes,
        )
        self.writes: list[int] = []

    async def write(self, by_run: Mapping[RunEpoch, list[bytes | int | str]]) -> None:
        self.writes += [len(fields) // 4 for fields in by_run.values()]


@pytest.mark.parametrize(("more_comes", "writes"), [(True, [1, 3]), (False, [1, 1, 1, 1])])
async def test_records_gather_while_more_is_in_the_engine(
    monkeypatch: pytest.MonkeyPatch,
    more_comes: bool,  # noqa: FBT001 (a parameter of the test)
    writes: list[int],
) -> None:
    """The first is written at once; those that follow within moments travel together, unless nothing else can come."""
    monkeypatch.setattr("gpu_worker.publisher.GATHER_S", 1.0)
    publisher = Written(more_comes=more_comes)
    running = asyncio.create_task(publisher.run())

    for number in range(4):
        publisher.add(an_answer(f"q{number}", index=number), 100)
        for _ in range(5):
            await asyncio.sleep(0)
    await publisher.flushed()

    assert publisher.writes == writes
    running.cancel()


async def test_a_write_is_bounded_in_bytes() -> None:
    """Log probabilities make megabytes of an answer.

    A thousand of them at once would never be through before the time-out.
    """
    publisher = Written(more_comes=False)
    for number in range(10):
        publisher.add(an_answer(f"q{number}", index=number, details={"logprobs": ["x" * 1_500_000]}), 100)
    running = asyncio.create_task(publisher.run())

    await publisher.flushed()

    assert sum(publisher.writes) == 10
    assert max(publisher.writes) == 2
    running.cancel()
