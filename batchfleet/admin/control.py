"""What a person asks of a running fleet."""

from __future__ import annotations

from typing import Any

import redis

from batchfleet.runs.ledger import no_run
from gpu_worker.heartbeat import DRAIN
from wire.codec import run_counts
from wire.errors import UsageError
from wire.keys import Keys
from wire.scripts import load_script

ASKED_FOR_S = 3600
NEWS_S = 60


def cancel_run(client: redis.Redis, keys: Keys, run: str, *, run_ttl_s: float) -> tuple[int, int]:
    """Cancel a run; other runs are not touched.

    Returns:
        How many of its questions were accepted, and how many had their record by now.

    Raises:
        UsageError: There is no such run.
    """
    script = client.register_script(load_script("producer", "cancel"))
    counts = script(keys=[keys.run(run), keys.cancelled, keys.wake, keys.news], args=[run, int(run_ttl_s), NEWS_S])
    if counts is None:
        raise no_run(client, keys, run)
    accepted, terminal = run_counts(run, counts)
    return accepted, terminal


def drain_worker(client: redis.Redis, keys: Keys, worker: str) -> None:
    """Ask a worker to finish what it holds and end. It hears of it with its next heartbeat.

    Raises:
        UsageError: No worker of that name reports.
    """
    if not client.exists(keys.worker(worker)):
        names: Any = client.zrange(keys.workers, 0, -1)
        reported = [name.decode("utf-8", "replace") for name in names]
        known = [name for name in reported if client.exists(keys.worker(name))]
        msg = f"no worker {worker!r} reports; there are: {', '.join(known) or 'none'}"
        raise UsageError(msg)
    client.set(keys.control(worker), DRAIN, ex=ASKED_FOR_S)
