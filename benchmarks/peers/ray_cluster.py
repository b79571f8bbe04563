"""Starts Ray on this machine for the peers that use it. It is gone, with its files, when this process ends."""

from __future__ import annotations

import atexit
import os
import tempfile

import ray


def start(workers: int) -> None:
    """Ray with a CPU for each worker. Its usage statistics are off: a benchmark tells nobody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Short: sockets will be in there.
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _temp_dir=folder.name)
    atexit.register(_stop, folder)


def _stop(folder: tempfile.TemporaryDirectory[str]) -> None:
    ray.shutdown()
    folder.cleanup()
