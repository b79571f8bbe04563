"""Finds batches that no list names, because the list was damaged or deleted, and lists them again."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import redis

from wire.keys import RQ_JOB_PREFIX, SUSPECT_AFTER_DEATHS, Keys
from wire.scripts import Call, call_each, load_script

log = logging.getLogger(__name__)

JOBS_PER_SCAN = 500
"""Keys that Redis goes through in one step."""
HURRIED_STEPS = 20
GRACE_HEARTBEATS = 3
"""How long a worker that holds such a batch has to renew its lease."""


class Orphans:
    """Run by the leading batcher. The script is atomic, so that a second one would do no harm."""

    def __init__(self, client: redis.Redis, keys: Keys, *, heartbeat_s: float) -> None:
        self._client = client
        self._keys = keys
        self._grace_ms = int(1000 * GRACE_HEARTBEATS * heartbeat_s)
        self._adopt = client.register_script(load_script("batcher.maintenance", "orphans"))
        self._cursor = 0
        self._hurried = 0

    def look_soon(self) -> None:
        """Something was damaged: go through all jobs soon. Twice, since some may have been passed just before."""
        self._hurried = 2

    def look(self) -> int:
        """Look at some jobs, others than last time; with every heartbeat. Returns how many were listed again."""
        found = 0
        for _ in range(HURRIED_STEPS if self._hurried else 1):
            found += self._step()
            if self._cursor == 0:
                self._hurried = max(0, self._hurried - 1)
                break
        return found

    def _step(self) -> int:
        seen: Any = self._client.scan(self._cursor, match=f"{RQ_JOB_PREFIX}*", count=JOBS_PER_SCAN)
        self._cursor, names = seen
        if not names:
            return 0
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(name, "origin")
            # What strangers put under such a name answers with an error of its own.
            origins = pipe.execute(raise_on_error=False)
        ours: dict[str, list[bytes]] = defaultdict(list)
        prefix = self._keys.rq_queue_name("").encode()
        for name, origin in zip(names, origins, strict=True):
            if isinstance(origin, bytes) and origin.startswith(prefix):
                ours[origin.removeprefix(prefix).decode("utf-8", "replace")].append(
                    name.removeprefix(RQ_JOB_PREFIX.encode())
                )
        return self._list_again(ours) if ours else 0

    def _list_again(self, ours: dict[str, list[bytes]]) -> int:
        keys = self._keys
        calls: list[Call] = []
        for model, ids in ours.items():
            lists = [
                keys.rq_queue(model),
                keys.leases(model),
                keys.suspects(model),
                keys.isolated(model),
                keys.newer(model),
            ]
            calls.append(
                (lists, [RQ_JOB_PREFIX, keys.rq_queue_name(model), self._grace_ms, SUSPECT_AFTER_DEATHS, *ids])
            )
        counts = call_each(self._client, self._adopt, calls)
        for model, count in zip(ours, counts, strict=True):
            if count:
                log.warning(
                    "%d batches of %s were listed nowhere; what held them was damaged or deleted",
                    count,
                    model,
                    extra={"model": model},
                )
        return sum(counts)
