"""Tells the fleet of single questions that nobody wants any more, so that no GPU works on them."""

from __future__ import annotations

import threading
from collections.abc import Collection

import redis

from producer.sender import Sender
from wire.keys import Keys, withdrawn_member
from wire.scripts import load_script

WITHDRAWN_TTL_MS = 3600 * 1000
MOST_WITHDRAWN = 10_000
"""Workers hear of all of them with each heartbeat."""


class Withdrawals:
    """Those of one run. Noted by any thread, told by the one that collects."""

    def __init__(self, client: redis.Redis, keys: Keys, run: str, sender: Sender) -> None:
        self._key = keys.withdrawn
        self._run = run
        self._sender = sender
        self._script = client.register_script(load_script("producer", "withdraw"))
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._new: set[int] = set()
        self._ended: set[int] = set()

    def add(self, index: int) -> None:
        """Nobody wants this one any more."""
        with self._lock:
            self._new.add(index)

    def end(self, indices: Collection[int]) -> None:
        """Their records have come."""
        with self._lock:
            self._new.difference_update(indices)
            self._ended.update(self._open.intersection(indices))
            self._open.difference_update(indices)

    def tell(self) -> None:
        """Let the fleet know what has changed. Safe to do again if no reply came."""
        with self._lock:
            new, ended = list(self._new), list(self._ended)
            self._open |= self._new
        if not new and not ended:
            return
        members = [withdrawn_member(self._run, self._sender.epoch, index) for index in (*new, *ended)]
        self._script(keys=[self._key], args=[WITHDRAWN_TTL_MS, MOST_WITHDRAWN, len(new), *members])
        with self._lock:
            self._new.difference_update(new)
            self._ended.difference_update(ended)
