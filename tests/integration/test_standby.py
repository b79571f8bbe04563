"""A worker that waits for the GPUs of another."""

from __future__ import annotations

import asyncio

import pytest
import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.gpus.devices import imagine
from gpu_worker.gpus.slices import SliceOptions
from gpu_worker.options import WorkerOptions
from gpu_worker.worker import GpuWorker
from tests.processes import PATIENCE_S
from wire.address import RedisAddress
from wire.keys import Keys


async def test_it_prepares_its_engine_and_starts_it_when_there_are_some(
    redis_server: EmbeddedServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long and no GPU is done by then."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    steps: list[str] = []
    prepared, started = asyncio.Event(), asyncio.Event()

    class Engine(StubEngine):
        def prepare(self) -> None:
            steps.append("prepare")
            prepared.set()

        async def start(self) -> None:
            steps.append("start")
            started.set()

    client.set(Keys().gpu("GPU-0"), "another", px=600_000)
    worker = GpuWorker(
        RedisAddress(redis_server.url),
        Engine(StubOptions()),
        WorkerOptions(heartbeat_s=0.05),
        SliceOptions(1, imagine("GPU-0")),
    )
    async with asyncio.timeout(PATIENCE_S):
        running = asyncio.create_task(worker.run())
        await prepared.wait()
        assert steps == ["prepare"]

        client.delete(Keys().gpu("GPU-0"))
        await started.wait()
        worker.stop()
        await running
    assert steps[-1] == "start"
