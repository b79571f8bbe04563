"""Several workers in one process, each with a stub of its own.

`python -m benchmarks.simulated_workers WORKERS --config FILE`, until SIGTERM. To Redis and to the batcher they are
workers like any others: names, claims, leases and heartbeats of their own. They share one Python, and so one core,
which is what a step clock leaves room for.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from batchfleet.tuning import helper
from gpu_worker.engines.build import build_engine
from gpu_worker.worker import GpuWorker


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", type=int)
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings = helper.load(arguments.config, os.environ.get("BATCHFLEET_REDIS_URL"))
    with asyncio.Runner(loop_factory=to_options.event_loop()) as runner:
        runner.run(_serve(settings, arguments.workers))
    return 0


async def _serve(settings: Settings, count: int) -> None:
    address, options = to_options.redis_address(settings), to_options.worker_options(settings)
    workers = [
        GpuWorker(address, build_engine(to_options.engine_options(settings, "stub")), options) for _ in range(count)
    ]

    def stop() -> None:
        for worker in workers:
            worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    collect_garbage_rarely()
    await asyncio.gather(*(worker.run() for worker in workers))


if __name__ == "__main__":
    sys.exit(main())
