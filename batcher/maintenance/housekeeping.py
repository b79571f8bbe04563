"""What the leading batcher does beside handing over.

Takes back, judges, ends what nobody wants, and forgets what is gone.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import redis

from batcher.leadership import Leadership
from batcher.maintenance.expiry import ExpirySweep
from batcher.maintenance.key_repair import Mender
from batcher.maintenance.orphans import Orphans
from batcher.maintenance.quarantine import Quarantine
from batcher.maintenance.queue_cleanup import QueueCleanup
from batcher.maintenance.reaper import Reaper
from batcher.maintenance.vanished import Vanished
from batcher.options import BatcherOptions
from batcher.stream_reader import QueueId, StreamReader, Unreadable
from wire.keys import DEAD_LETTER_TTL_S, Keys

log = logging.getLogger(__name__)

SILENT_HEARTBEATS = 10
"""A batcher whose report has not changed for this many heartbeats is forgotten."""
RUNS_EVERY_S = 60.0
RUNS_AT_ONCE = 100
ENDING_S = 0.02
"""Longest that hand-overs wait while questions are ended that nobody wants."""


class Housekeeping:
    """Of one batcher; only while it leads. `taken_back` counts the batches of workers that stopped making progress.

    Args:
        inbox: Told what was taken out of a stream, and which streams are gone.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, leadership: Leadership, options: BatcherOptions, inbox: StreamReader
    ) -> None:
        self._client = client
        self._keys = keys
        self._bury = leadership.fenced("batcher.maintenance", "bury")
        self._max_dead_letters = options.max_dead_letters
        self._silent_s = SILENT_HEARTBEATS * options.heartbeat_s
        self._reaper = Reaper(client, keys, heartbeat_s=options.heartbeat_s, lease_s=options.lease_s)
        self._quarantine = Quarantine(
            client, keys, leadership, max_bytes=options.limits.max_bytes, run_ttl_s=options.run_ttl_s
        )
        self._ending = ExpirySweep(client, keys, leadership, run_ttl_s=options.run_ttl_s, forget=inbox.forget)
        self._tidying = QueueCleanup(client, keys, inbox)
        self._vanished = Vanished(client, keys, heartbeat_s=options.heartbeat_s)
        self._orphans = Orphans(client, keys, heartbeat_s=options.heartbeat_s)
        self._mender = Mender(client, keys, max_dead_letters=options.max_dead_letters, moved=self._orphans.look_soon)
        self._reports: dict[bytes, tuple[bytes, float]] = {}
        self._runs_at = 0.0
        self._runs_from = 0
        self.taken_back = 0

    def restart(self) -> None:
        """Forget everything seen before this batcher began to lead."""
        self._ending.restart()
        self._vanished.restart()

    def tend(self, queues: Collection[QueueId]) -> None:
        """Do it all once; with every heartbeat.

        Raises:
            LeaseLostError: This batcher does not lead any more.
        """
        models = {model for model, _ in queues}
        self._mender.patrol()
        self._orphans.look()
        self.taken_back += self._reaper.take_back(models)
        self._quarantine.judge_all(models)
        self._vanished.look()
        self._forget_silent_batchers()
        self._forget_expired_runs()
        self._tidying.tidy_sometimes()
        self._ending.look(queues)

    def end_unwanted(self, queues: Collection[QueueId], *, look: bool) -> bool:
        """Continue ending unwanted questions, for a moment.

        Args:
            look: Somebody has just cancelled a run: look at once.

        Returns:
            Whether there is more to do at once.

        Raises:
            LeaseLostError: This batcher does not lead any more.
        """
        if look:
            self._ending.look(queues)
        return self._ending.go_on(ENDING_S)

    def mend(self) -> None:
        """Look at every key, because one of them was found to be damaged.

        Any batcher may do this: leadership itself rests on keys.
        """
        self._mender.search()

    def put_aside(self, unreadable: Sequence[Unreadable]) -> None:
        """Move stream entries that are no questions to the dead letters.

        Raises:
            LeaseLostError: This batcher does not lead any more; nothing was moved.
        """
        by_stream: dict[str, list[bytes | str]] = defaultdict(list)
        for stream, entry_id, reason in unreadable:
            log.error("dead letter: %s (%s in %s)", reason, entry_id.decode(), stream)
            by_stream[stream] += (entry_id, reason)
        for stream, entries in by_stream.items():
            self._bury([self._keys.dead, stream], [self._max_dead_letters, DEAD_LETTER_TTL_S, *entries])

    def _forget_silent_batchers(self) -> None:
        """By our own clock and whether their words change: theirs may be wrong."""
        now = time.monotonic()
        reports: Any = self._client.hgetall(self._keys.batchers)
        self._reports = {name: self._reports.get(name, (report, now)) for name, report in reports.items()}
        silent = []
        for name, report in reports.items():
            before, since = self._reports[name]
            if report != before:
                self._reports[name] = (report, now)
            elif now - since > self._silent_s:
                silent.append(name)
        if silent:
            self._client.hdel(self._keys.batchers, *silent)

    def _forget_expired_runs(self) -> None:
        if time.monotonic() < self._runs_at:
            return
        self._runs_at = time.monotonic() + RUNS_EVERY_S
        names: Any = self._client.zrange(self._keys.runs, self._runs_from, self._runs_from + RUNS_AT_ONCE - 1)
        with self._client.pipeline(transaction=False) as pipe:
            for run in names:
                pipe.exists(self._keys.run(run.decode("utf-8", "replace")))
            there = pipe.execute()
        gone = [run for run, exists in zip(names, there, strict=True) if not exists]
        if gone:
            self._client.zrem(self._keys.runs, *gone)
        # The oldest may live on for long, with those behind them gone.
        self._runs_from += len(names) - len(gone)
        if len(names) < RUNS_AT_ONCE:
            self._runs_from = 0
