"""How many workers this host is to have now: the rule, applied to what Redis says of the backlog."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import redis

from batchfleet.humanize import plural
from batchfleet.status.backlog import unanswered_questions
from batchfleet.status.host_reports import read_hosts
from batchfleet.status.workers import WorkerSnapshot
from batchfleet.supervisor.engine_measures import EngineMeasures
from batchfleet.supervisor.scale_rule import Load, Scale, WorkerRange, needed_here, needed_workers
from wire.keys import Keys

log = logging.getLogger(__name__)


class Autoscaler:
    """Keeps the number of workers within a range, as the backlog has it.

    Args:
        model: That the workers serve; empty if nothing says which.
        batch_size: Most questions in a batch.
        capacity: Questions that a worker keeps in flight, as far as the settings say it; else 0.
        idle_s: How long fewer workers have to do before any goes.
        room: Workers that the host's GPUs hold; None where that says nothing.
    """

    def __init__(self, model: str, *, batch_size: int, capacity: int, idle_s: float, room: int | None) -> None:
        self.model = model
        self._batch_size = batch_size
        self._idle_s = idle_s
        self._room = room
        self._measures = EngineMeasures(capacity)
        self._range = WorkerRange(0, 0)
        self._lost = 0
        self._scale = Scale(0)

    def set_range(self, asked: WorkerRange, workers: int) -> None:
        """Take a new range, with so many workers there."""
        if self._room is not None and not asked.is_fixed and asked.most > self._room:
            log.warning("the GPUs of this host hold %d workers, which is its maximum", self._room)
            asked = asked.at_most(self._room)
        self._range, self._lost = asked, 0
        self._scale = Scale(asked.clamp(workers))

    @property
    def range(self) -> WorkerRange:
        """The range, less what was lost: whom the fleet gave up or somebody drained, nobody replaces unasked."""
        return self._range.at_most(self._range.most - self._lost)

    @property
    def wanted(self) -> int:
        return self.range.clamp(self._scale.wanted)

    def observe(self, pids: Collection[int], seen: Sequence[WorkerSnapshot], now_s: float) -> None:
        """Learn from the workers there are."""
        self._measures.observe(pids, seen, now_s)

    def look(self, client: redis.Redis, keys: Keys, host: str, lost: int, now_s: float) -> None:
        """Decide again how many workers are wanted on this host; `lost`: how many were given up or drained."""
        self._lost = lost
        if self._range.is_fixed:
            return
        measures = self._measures
        unanswered = unanswered_questions(client, keys, self.model, self._batch_size) if self.model else 0
        needed = needed_workers(Load(unanswered, measures.capacity, measures.per_s, measures.boot_s))
        if needed:
            needed = needed_here(needed, read_hosts(client, keys), host, self.model)
        before = self.wanted
        self._scale = self._scale.after(self.range.clamp(needed), now_s, self._idle_s)
        if self.wanted != before:
            log.info(
                "%s wanted in place of %d: about %d questions unanswered; a worker keeps %s in flight, answers %s a "
                "second and boots in %s s (?: not known yet)",
                plural(self.wanted, "worker"), before, unanswered, measures.capacity or "?",
                round(measures.per_s, 1) or "?", round(measures.boot_s, 1) or "?",
            )  # fmt: skip
