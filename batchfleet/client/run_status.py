"""How a run stands, read from Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import redis

from wire.codec import run_counts
from wire.errors import UsageError
from wire.keys import Keys


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands, at one instant.

    Attributes:
        run: Its id.
        questions: How many it has; None while they are still being given.
        accepted: Questions that the fleet took.
        answered, failed: Of these.
        delivered: Records that a producer has handled.
        is_cancelled: Whether somebody cancelled it.
        is_collected: Whether a living producer sends its questions or collects its records.
        waiting_for: Why this process cannot send more just now, in words; empty if it can, or has nothing to send.
    """

    run: str
    questions: int | None
    accepted: int
    answered: int
    failed: int
    delivered: int
    is_cancelled: bool
    is_collected: bool
    waiting_for: str = ""

    @property
    def open(self) -> int:
        """Accepted questions that have no record yet."""
        return self.accepted - self.answered - self.failed

    @property
    def is_done(self) -> bool:
        """Whether every question has its record, and no more will be accepted."""
        if self.open > 0:
            return False
        if self.questions is not None and self.accepted >= self.questions:
            return True
        return self.is_cancelled or not self.is_collected


def read_run(client: redis.Redis, keys: Keys, run: str) -> RunStatus:
    """Read how a run stands.

    Raises:
        UsageError: No such run, or it expired.
        QueueDamagedError: Its counts are no numbers.
    """
    # No transaction: a Redis that is full refuses even reading in one.
    with client.pipeline(transaction=False) as pipe:
        pipe.hmget(keys.run(run), ["questions", "accepted", "answered", "failed", "acknowledged", "cancelled"])
        pipe.exists(keys.producer(run))
        fields, collected = pipe.execute()
    if fields[1] is None:
        raise UsageError(
            f"no run {run!r} in Redis; finished runs are kept for limits.run_ttl_s after their last activity"
        )
    questions, accepted, answered, failed, acknowledged = run_counts(run, fields[:5])
    return RunStatus(
        run=run,
        questions=questions if questions >= 0 else None,
        accepted=accepted,
        answered=answered,
        failed=failed,
        delivered=acknowledged,
        is_cancelled=fields[5] is not None,
        is_collected=bool(collected),
    )


def read_fingerprint(client: redis.Redis, keys: Keys, run: str) -> dict[str, str]:
    """What a run was made of.

    Raises:
        UsageError: No such run, or it expired.
    """
    stored: Any = client.hget(keys.run(run), "fingerprint")
    if stored is None:
        read_run(client, keys, run)
        return {}
    found: dict[str, str] = json.loads(stored)
    return found
