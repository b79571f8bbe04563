"""Takes back the batches of workers that stopped making progress."""

from __future__ import annotations

import logging

import redis

from wire.connection import load_script
from wire.keys import RQ_JOB_PREFIX, SUSPECT_AFTER_DEATHS, Keys

log = logging.getLogger(__name__)

AT_ONCE = 100


class Reaper:
    """Run by the leading batcher. The script is atomic, so that a second reaper would do no harm."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._keys = keys
        self._reap = client.register_script(load_script("batcher", "reap"))

    def take_back(self, models: set[str]) -> int:
        """Put every batch with a lapsed lease back to the front of its queue, or among the suspects if that keeps happening.

        Returns:
            How many there were.
        """
        taken = 0
        for model in sorted(models):
            keys = [self._keys.leases(model), self._keys.rq_queue(model), self._keys.suspects(model)]
            lapsed = self._reap(keys=keys, args=[RQ_JOB_PREFIX, AT_ONCE, SUSPECT_AFTER_DEATHS])
            for batch, worker, deaths in lapsed:
                words = "worker %s stopped making progress; batch %s of %s goes to another (workers that died of it or with it: %d)"
                log.warning(words, worker.decode(), batch.decode(), model, deaths)
            taken += len(lapsed)
        return taken
