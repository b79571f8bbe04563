"""Forgets streams of models that nobody asks for, and counts of pending questions where there are none.

Nothing else ends these.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis

from batcher.stream_reader import StreamReader
from wire.keys import Keys, parse_queue_member, queue_member
from wire.scripts import load_script

log = logging.getLogger(__name__)

CLEANUP_EVERY_S = 15.0
IDLE_S = 3600.0
"""A stream that has been empty for so long is forgotten; `limits.max_models` bounds those that are not."""
MOST_NAMES = 20_000
"""With more names than a fleet can have, somebody else wrote there, and the step would take too long."""


class QueueCleanup:
    """Run by the leading batcher. The script is atomic, so that a second one would do no harm."""

    def __init__(self, client: redis.Redis, keys: Keys, inbox: StreamReader) -> None:
        self._client = client
        self._keys = keys
        self._inbox = inbox
        self._tidy = client.register_script(load_script("batcher.maintenance", "tidy"))
        self._next = 0.0

    def tidy_sometimes(self) -> None:
        """Tidy every `CLEANUP_EVERY_S` seconds; call it with every heartbeat."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + CLEANUP_EVERY_S
            self.tidy()

    def tidy(self, idle_s: float = IDLE_S) -> None:
        """Forget streams in which nothing has been for `idle_s` seconds."""
        keys = self._keys
        names: Any = self._client.scard(keys.queues)
        if names > MOST_NAMES:
            log.warning("%s has %d names; none of them is forgotten", keys.queues, names)
            return
        unused = [queue_member(*queue) for queue in self._inbox.unused(idle_s)]
        found: Any = self._tidy(keys=[keys.queues, keys.pending, keys.expiring], args=[keys.namespace, *unused])
        ghosts, *gone = found
        if ghosts:
            log.warning(
                "%d questions were counted as pending, and are nowhere: their runs were forgotten and asked again",
                ghosts,
            )
        for member in gone:
            queue = parse_queue_member(member.decode())
            if queue is not None:
                log.info("forgot the queue of %s, priority %d: it has long been empty", *queue)
                self._inbox.forget_queue(queue)
