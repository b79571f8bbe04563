"""When the earliest deadline of each stream passes, as the sorted set `expiring` says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import redis
from redis.commands.core import Script

from batcher.stream_reader import QueueId
from wire.keys import Keys, parse_queue_member, queue_member

# Both begin with a write that takes no memory, because Redis refuses a script for want of memory only at a first write
# that does.
# KEYS[1] zset expiring; ARGV: each MODEL:P through which a walk goes
_BEGIN = """
redis.call('ZREM', KEYS[1], '')
for _, name in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 'inf', name) end
"""

# A walk has seen all that was marked before it, unless somebody marked an earlier deadline meanwhile.
# KEYS[1] zset expiring; ARGV[1] MODEL:P, ARGV[2] the earliest deadline that was found, or ''
_MARK = """
redis.call('ZREM', KEYS[1], '')
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= 'inf' and ARGV[2] == '' then return 0 end
if ARGV[2] == '' then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return redis.call('ZADD', KEYS[1], 'LT', ARGV[2], ARGV[1])
"""


class DeadlineMarks:
    """Which streams a walk for deadlines must go through. Of use to the leading batcher only."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._begin: Script = client.register_script(_BEGIN)
        self._mark: Script = client.register_script(_MARK)
        self.restart()

    def restart(self) -> None:
        """Trust no mark: an earlier leader may have stopped half way."""
        self._all_due = True
        self._rested_at = 0.0

    def rest(self, seconds: float) -> None:
        """Nothing is due for this many seconds."""
        self._rested_at = time.monotonic() + seconds

    def due(self, marked: Sequence[tuple[bytes, float]], now: float) -> list[QueueId]:
        """Queues in which a deadline has passed, or whose marks a leader before us may have left half way."""
        if not self._all_due and time.monotonic() < self._rested_at:
            return []
        due = []
        for member, earliest in marked:
            queue = parse_queue_member(member.decode("utf-8", "replace"))
            if queue is None:
                self._client.zrem(self._keys.expiring, member)
            elif earliest <= now or self._all_due:
                due.append(queue)
        self._all_due = False
        return due

    def begin(self, queues: Iterable[QueueId]) -> None:
        """Note that a walk goes through these streams."""
        self._begin(keys=[self._keys.expiring], args=[queue_member(*queue) for queue in queues])

    def mark(self, queue: QueueId, earliest: float | None) -> None:
        """Note the earliest deadline that the walk left in a stream; None if it left none."""
        self._mark(keys=[self._keys.expiring], args=[queue_member(*queue), "" if earliest is None else earliest])
