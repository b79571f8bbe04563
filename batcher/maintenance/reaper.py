"""Takes back the batches of workers that stopped making progress."""

from __future__ import annotations

import logging
from typing import Any

import redis

from wire.keys import RQ_JOB_PREFIX, SUSPECT_AFTER_DEATHS, Keys
from wire.scripts import call_each, load_script

log = logging.getLogger(__name__)

BATCHES_PER_CALL = 100
MOST_LEASES = 3
"""A lease that has longer to go than so many of those that workers make is shortened to that.

Then the server's clock was set back.
"""
GRACE_HEARTBEATS = 3
"""Who looks less often than this has seen nothing: Redis was away, or nobody led.

Then workers get as long to be heard before they count as dead. By the server's clock, as leases are: then a clock that
is set there, or a machine that slept, costs nobody's work either."""


class Reaper:
    """Run by the leading batcher. The script is atomic, so that a second reaper would do no harm."""

    def __init__(self, client: redis.Redis, keys: Keys, *, heartbeat_s: float, lease_s: float = 60.0) -> None:
        self._client = client
        self._keys = keys
        self._reap = client.register_script(load_script("batcher.maintenance", "reap"))
        self._grace_s = GRACE_HEARTBEATS * heartbeat_s
        self._longest_ms = int(1000 * MOST_LEASES * lease_s)
        self._looked_at = float("-inf")
        self._not_before = 0.0

    def take_back(self, models: set[str]) -> int:
        """Put every batch with a lapsed lease back to the front of its queue.

        If that keeps happening to a batch, it goes among the suspects instead.

        Returns:
            How many there were.
        """
        clock: Any = self._client.time()
        now = clock[0] + clock[1] / 1e6
        if abs(now - self._looked_at) > self._grace_s:
            self._not_before = now + self._grace_s
        self._looked_at = now
        if now < self._not_before:
            return 0
        if not models:
            return 0
        names, taken = sorted(models), 0
        args: list[str | int] = [RQ_JOB_PREFIX, BATCHES_PER_CALL, SUSPECT_AFTER_DEATHS, self._longest_ms]
        keys = self._keys
        places = [[keys.leases(model), keys.rq_queue(model), keys.suspects(model)] for model in names]
        replies = call_each(self._client, self._reap, [(of_model, args) for of_model in places])
        for model, lapsed in zip(names, replies, strict=True):
            for batch, worker, deaths in lapsed:
                words = (
                    "worker %s stopped making progress; "
                    "batch %s of %s goes to another (workers that died of it or with it: %d)"
                )
                who = {"batch": batch.decode(), "worker": worker.decode(), "model": model}
                log.warning(words, who["worker"], who["batch"], model, deaths, extra=who)
            taken += len(lapsed)
        return taken
