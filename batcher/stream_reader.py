"""Reads questions from the streams, in bounded amounts.

Reading changes nothing in Redis: what is not handed over is still there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

import redis

from batcher.fair_queue import FairQueue
from batcher.packing import Waiting
from batcher.prefixes import prefix_of
from wire.address import BLOCK_S
from wire.keys import Keys, parse_queue_member
from wire.streams import Entry, entries_of

log = logging.getLogger(__name__)

QueueId = tuple[str, int]
"""Model and priority."""

Unreadable = tuple[str, bytes, str]
"""Stream, entry id and reason of something that is no question."""

READ_BYTES = 16 * 1024 * 1024
"""Most that one read should bring."""
READ_AHEAD_BYTES = 64 * 1024 * 1024
"""Most that is held of what cannot be handed over yet.

Runs take turns among what is held; what lies behind it waits as it came.
"""
READ_AT_ONCE = 512
NAMES_AT_ONCE = 2000
SHORT_S = 0.01
"""Redis ends a wait that lapsed only when it has something else to do, or when its own timer fires every 100 ms.

Shorter waits are ours.
"""


class StreamReader:
    """What this batcher has read and not yet handed over, by queue.

    `cancelled` is set when somebody has cancelled a run; whoever sees to it resets it.

    Args:
        group_prefixes: Whether to look how questions begin.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        *,
        batch_questions: int,
        max_question_bytes: int,
        max_queues: int,
        group_prefixes: bool = False,
    ) -> None:
        self._client = client
        self._keys = keys
        self._least_ahead = max(2 * batch_questions, READ_AT_ONCE)
        self._max_question_bytes = max_question_bytes
        self._max_queues = max_queues
        self._group_prefixes = group_prefixes
        # Begins with a few, since nothing is known of them.
        self._largest_bytes = READ_BYTES // 32
        self._wake_seen: bytes | str = "$"
        self._seen: dict[QueueId, bytes] = {}
        self._used: dict[QueueId, float] = {}
        self.waiting: dict[QueueId, FairQueue] = {}
        self.unreadable: list[Unreadable] = []
        self.cancelled = False

    def restart(self) -> None:
        """Forget everything and begin with what Redis holds.

        After a change of leader, or when a hand-over's outcome is unknown.
        """
        self._seen.clear()
        self.waiting.clear()
        self.unreadable.clear()
        self._wake_seen = "0"
        self.find_queues()

    def read(self, wait_s: float | None) -> None:
        """Take in what has come; wait for it at most `wait_s` (None: as long as one blocking command may).

        Raises:
            QueueDamagedError: A stream has the last entry that it can ever have.
        """
        streams: dict[Any, Any] = {self._keys.wake: self._wake_seen}
        queues = {}
        roomy = sum(line.bytes for line in self.waiting.values()) < READ_AHEAD_BYTES
        for queue, line in self.waiting.items():
            if roomy or len(line) < self._least_ahead:
                stream = self._keys.questions(*queue)
                streams[stream] = self._seen[queue]
                queues[stream.encode()] = queue
        wait_s = min(wait_s if wait_s is not None else BLOCK_S, BLOCK_S)
        if wait_s <= SHORT_S:
            time.sleep(wait_s)
            wait_s = 0.0
        wait_ms = int(1000 * wait_s)
        # BLOCK 0 would wait for ever.
        reply: Any = self._client.xread(streams, count=self._count(), block=wait_ms or None)
        now = time.monotonic()
        for name, entries in entries_of(reply):
            if name in queues:
                self._take(queues[name], entries, now)
            else:
                self._wake_seen = entries[-1][0]
                self.cancelled |= any(b"cancelled" in fields for _, fields in entries)
                if any(b"queue" in fields for _, fields in entries):
                    self.find_queues()

    def gathers_since(self, queue: QueueId, most: int) -> float | None:
        """As `FairQueue` has it, for what `front` would give."""
        return self.waiting[queue].gathers_since(min(most, self._least_ahead))

    def front(self, queue: QueueId, most: int) -> list[Waiting]:
        """At most so many questions for the next hand-over, in the order in which they should go."""
        return self.waiting[queue].front(min(most, self._least_ahead))

    def forget(self, queue: QueueId, entry_ids: Collection[bytes]) -> None:
        """Forget questions that are not in the stream any more, wherever in the queue they are."""
        if waiting := self.waiting.get(queue):
            waiting.forget(entry_ids)

    def forget_queue(self, queue: QueueId) -> None:
        """Its stream is gone; should there be one of that name again, it is found as a new one."""
        self.waiting.pop(queue, None)
        self._seen.pop(queue, None)
        self._used.pop(queue, None)

    def unused(self, idle_s: float) -> list[QueueId]:
        """Queues in which nothing has been for so many seconds."""
        now = time.monotonic()
        return [queue for queue, waiting in self.waiting.items() if not waiting and now - self._used[queue] >= idle_s]

    def _count(self) -> int:
        return max(1, min(READ_AT_ONCE, READ_BYTES // self._largest_bytes))

    def _take(self, queue: QueueId, entries: Sequence[Entry], now: float) -> None:
        waiting = self.waiting[queue]
        for entry_id, fields in entries:
            data = fields.get(b"q") if fields else None
            if data is None:
                self.unreadable.append((self._keys.questions(*queue), entry_id, "a stream entry without a question"))
                continue
            if len(data) > self._max_question_bytes:
                reason = f"a question of {len(data)} bytes; {self._max_question_bytes} are the most"
                self.unreadable.append((self._keys.questions(*queue), entry_id, reason))
                continue
            prefix = prefix_of(data) if self._group_prefixes else ()
            waiting.append(Waiting(entry_id, data, now, fields.get(b"r", b""), prefix))
            # Decays, so that one giant does not slow reading for good.
            self._largest_bytes = max(len(data), int(self._largest_bytes * 0.999), 256)
        self._seen[queue] = entries[-1][0]
        self._used[queue] = now

    def find_queues(self) -> None:
        """Take note of streams that were not there before. Of names without end, some are looked at each time."""
        members: Any = self._client.srandmember(self._keys.queues, NAMES_AT_ONCE)
        named = {
            queue
            for member in members
            if (queue := parse_queue_member(member.decode("utf-8", "replace"))) and queue not in self.waiting
        }
        if not named:
            return
        new = sorted(named)
        with self._client.pipeline(transaction=False) as pipe:
            for queue in new:
                pipe.exists(self._keys.questions(*queue))
            there = pipe.execute()
        for queue, exists in zip(new, there, strict=True):
            if exists and len(self.waiting) >= self._max_queues:
                log.error("ignored: stream %a is one too many (limits.max_models)", self._keys.questions(*queue)[:100])
            elif exists:
                self.waiting[queue] = FairQueue()
                self._seen[queue] = b"0"
                self._used[queue] = time.monotonic()
