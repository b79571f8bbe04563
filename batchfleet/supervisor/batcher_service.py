"""The command `batcher`, from settings to exit code."""

from __future__ import annotations

import signal

from batcher.batcher import Batcher
from batchfleet.metrics.batcher_metrics import BatcherMetrics
from batchfleet.metrics.exposition import expose
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings


def serve_batcher(settings: Settings) -> int:
    """Run a batcher until SIGTERM or SIGINT."""
    address = to_options.redis_address(settings)
    batcher = Batcher(address, to_options.batcher_options(settings))
    batcher.metrics = expose(BatcherMetrics(batcher, address), settings.metrics)
    # A handler that only sets a flag: whatever is under way ends in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: batcher.stop())
    batcher.serve()
    return 0
