"""What a person asks of a running fleet."""

from __future__ import annotations

import socket
import time
from typing import Any

import redis

from batchfleet.runs.ledger import no_run
from batchfleet.status.figures import AT_WORK
from batchfleet.status.workers import see_workers
from gpu_worker.heartbeat import DRAIN
from wire.codec import run_counts
from wire.errors import UsageError
from wire.keys import Keys
from wire.scripts import load_script

ASKED_FOR_S = 3600
NEWS_S = 60
WORKER_POLL_S = 0.5
AFTER_DRAIN_S = 30.0
"""An engine that ends, and the worker's last words."""


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
        raise UsageError(f"no worker {worker!r} reports; there are: {', '.join(known) or 'none'}")
    client.set(keys.control(worker), DRAIN, ex=ASKED_FOR_S)


def drain_here(client: redis.Redis, keys: Keys, drain_s: float) -> bool:
    """Ask the workers of this host to finish what they hold and end, and wait until they have.

    Those that boot or stand by hold nothing: they are left to the signal that comes next. A Redis that goes away
    meanwhile is waited for; what the workers do does not depend on it.

    Returns:
        Whether they have ended within `drain_s` and a little.
    """
    host = socket.gethostname()
    for worker in see_workers(client, keys, host):
        if worker.state in AT_WORK:
            client.set(keys.control(worker.name), DRAIN, ex=ASKED_FOR_S)
    give_up_at = time.monotonic() + drain_s + AFTER_DRAIN_S
    while _serves(client, keys, host):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(WORKER_POLL_S)
    return True


def _serves(client: redis.Redis, keys: Keys, host: str) -> bool:
    try:
        return any(worker.state in AT_WORK for worker in see_workers(client, keys, host))
    except (redis.ConnectionError, redis.TimeoutError):
        return True
