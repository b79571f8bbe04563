"""The command `worker`, from settings to exit code."""

from __future__ import annotations

import asyncio
import os
import signal

from batchfleet.metrics.exposition import expose
from batchfleet.metrics.worker_metrics import WorkerMetrics
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from gpu_worker.engines.build import build_engine
from gpu_worker.gpus.slices import SliceOptions
from gpu_worker.worker import GpuWorker
from wire.address import RedisAddress


def serve_worker(settings: Settings, engine: str | None) -> int:
    """Run a worker until SIGTERM or SIGINT; a second signal gives back at once what is in flight."""
    kind = to_options.engine_kind(settings, engine)
    address = to_options.redis_address(settings)
    with asyncio.Runner(loop_factory=to_options.event_loop()) as runner:
        runner.run(_serve(address, settings, kind))
    return 0


async def _serve(address: RedisAddress, settings: Settings, kind: str) -> None:
    gpus = SliceOptions.of(kind, settings.model.generator_settings.vllm_args, os.environ)
    worker = GpuWorker(
        address,
        build_engine(to_options.engine_options(settings, kind), to_options.image_options(settings), address),
        to_options.worker_options(settings),
        gpus,
    )
    worker.report.metrics = expose(WorkerMetrics(worker.report), settings.metrics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    collect_garbage_rarely()
    await worker.run()
