"""Takes back the batches of workers that stopped making progress."""

from __future__ import annotations

import logging

import redis

from wire.connection import load_script
from wire.keys import RQ_JOB_PREFIX, Keys

log = logging.getLogger(__name__)

AT_ONCE = 100


class Reaper:
    """Run by the leading batcher. The script is atomic, so that a second reaper would do no harm."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._keys = keys
        self._reap = client.register_script(load_script("batcher", "reap"))

    def take_back(self, models: set[str]) -> int:
        """Put every batch with a lapsed lease back to the front of its queue.

        Returns:
            How many there were.
        """
        taken = 0
        for model in sorted(models):
            lapsed = self._reap(keys=[self._keys.leases(model), self._keys.rq_queue(model)], args=[RQ_JOB_PREFIX, AT_ONCE])
            for batch, worker, attempts in lapsed:
                log.warning(
                    "worker %s stopped making progress; batch %s of %s goes to another (given out %s times)",
                    worker.decode(), batch.decode(), model, attempts.decode(),
                )  # fmt: skip
            taken += len(lapsed)
        return taken
