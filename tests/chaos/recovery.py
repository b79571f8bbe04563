"""How long the batches of a killed worker are out of work.

Until another worker has each of them, or until it is answered.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.chaos.fleet_under_test import MODEL, FleetUnderTest
from wire.codec import decode_batch, decode_question
from wire.errors import MalformedMessageError
from wire.keys import RQ_JOB_PREFIX, Keys

KEYS = Keys()


@dataclass(slots=True)
class Orphan:
    """A batch whose worker was killed.

    Attributes:
        token: Of the dead worker's lease.
        questions: (run, index) of each.
        since: When the worker was killed, in seconds on the monotonic clock.
    """

    job: str
    token: bytes
    questions: list[tuple[str, int]]
    since: float


@dataclass(slots=True)
class RecoveryWatch:
    """Follows the batches of killed workers. `took_s` has one entry for each batch that found its way."""

    orphans: list[Orphan] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)

    def killed(self, fleet: FleetUnderTest, worker: str) -> None:
        """Take note of what a worker held that was killed just now."""
        names = re.findall(r"worker (\S+) serves ", fleet.log(worker).read_text(encoding="utf-8", errors="replace"))
        if names:
            self.orphans += fleet.ask(lambda client: _held_by(client, names[-1].encode(), time.monotonic())) or []

    def look(self, fleet: FleetUnderTest) -> None:
        """See what became of them."""
        if not self.orphans:
            return
        found = fleet.ask(lambda client: [_is_cared_for(client, orphan) for orphan in self.orphans])
        if found is None:
            return
        now = time.monotonic()
        self.took_s += [now - orphan.since for orphan, cared_for in zip(self.orphans, found, strict=True) if cared_for]
        self.orphans = [orphan for orphan, cared_for in zip(self.orphans, found, strict=True) if not cared_for]


def _held_by(client: redis.Redis, worker: bytes, now: float) -> list[Orphan]:
    orphans = []
    leased: Any = client.zrange(KEYS.leases(MODEL), 0, -1)
    for batch in leased:
        job = RQ_JOB_PREFIX + batch.decode()
        found: Any = client.hmget(job, "worker_name", "lease_token", "data")
        name, token, data = found
        if name == worker and token is not None and data is not None:
            orphans.append(Orphan(job, token, _questions_in(data), now))
    return orphans


def _questions_in(data: bytes) -> list[tuple[str, int]]:
    try:
        questions = [decode_question(one) for one in decode_batch(data)]
    except MalformedMessageError:
        return []
    return [(question.run, question.index) for question in questions]


def _is_cared_for(client: redis.Redis, orphan: Orphan) -> bool:
    token = client.hget(orphan.job, "lease_token")
    if token is not None:
        return token != orphan.token
    if client.exists(orphan.job):
        return False
    # The job is gone: finished, or divided into others, which may still wait for a worker.
    open_ones = {(run, index) for run, index in orphan.questions if not client.getbit(KEYS.done(run), index)}
    return not open_ones or open_ones <= _in_work(client)


def _in_work(client: redis.Redis) -> set[tuple[str, int]]:
    """The questions of all batches that a worker has now."""
    leased: Any = client.zrange(KEYS.leases(MODEL), 0, -1)
    held: list[Any] = [client.hmget(RQ_JOB_PREFIX + batch.decode(), "lease_token", "data") for batch in leased]
    return {
        question for token, data in held if token is not None and data is not None for question in _questions_in(data)
    }
