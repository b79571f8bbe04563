"""The ledger of a run: what was accepted, what came of it, and whether anything is missing or counted twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import redis

from wire.address import RedisAddress
from wire.codec import run_counts
from wire.connection import connect
from wire.errors import FleetError, UsageError
from wire.keys import Keys
from wire.redis_errors import translated


@dataclass(frozen=True, slots=True)
class Ledger:
    """Conservation of one run, from what Redis stores.

    Attributes:
        accepted: Questions with their bit set in the bitmap of accepted ones.
        answered, failed: Terminal records, counted when each was written.
        missing: Accepted questions without a bit in the bitmap of done ones: still queued or in work, or lost.
        duplicates: Records beyond one per question. Both are computed from the bitmaps, independently of the counts.
    """

    run: str
    accepted: int
    answered: int
    failed: int
    missing: int
    duplicates: int

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


# One script, so that the figures belong to one instant. KEYS: run, accepted, done; a scratch key that is deleted again.
_READ = """
local counts = redis.call('HMGET', KEYS[1], 'answered', 'failed')
if not counts[1] then return false end
redis.call('BITOP', 'AND', KEYS[4], KEYS[2], KEYS[3])
local both = redis.call('BITCOUNT', KEYS[4])
redis.call('DEL', KEYS[4])
return {counts[1], counts[2] or '', redis.call('BITCOUNT', KEYS[2]), both}
"""


def no_run(client: redis.Redis, keys: Keys, run: str) -> UsageError:
    """What to tell somebody who names a run that is not there."""
    latest: Any = client.zrevrange(keys.runs, 0, 4)
    names = [name.decode("utf-8", "replace") for name in latest]
    # What is listed may be among the dead letters since a moment ago, or deleted by hand.
    known = ", ".join(name for name in names if client.exists(keys.run(name))) or "none"
    return UsageError(f"no run {run!r} in Redis (finished runs are kept for limits.run_ttl_s); the latest are: {known}")


def read_ledger(client: redis.Redis, keys: Keys, run: str) -> Ledger:
    """Read the ledger of a run at one instant.

    Raises:
        UsageError: No such run, or it expired.
    """
    names = [keys.run(run), keys.accepted(run), keys.done(run), f"{keys.run(run)}:verify"]
    found = client.register_script(_READ)(keys=names)
    if found is None:
        raise no_run(client, keys, run)
    *counts, accepted, both = found
    answered, failed = run_counts(run, counts)
    return Ledger(run, accepted, answered, failed, missing=accepted - both, duplicates=answered + failed - both)


def every_ledger(client: redis.Redis, keys: Keys) -> Iterator[Ledger]:
    """Those of all runs that Redis has, the latest first."""
    names: Any = client.zrevrange(keys.runs, 0, -1)
    for name in names:
        # Listed, and expired or forgotten since.
        with contextlib.suppress(UsageError):
            yield read_ledger(client, keys, name.decode("utf-8", "replace"))


def find_ledger(address: RedisAddress, run: str) -> Ledger | None:
    """The ledger of a run that is done and on disk, where it is a courtesy; None if Redis does not give it."""
    try:
        with translated(address), connect(address) as client:
            return read_ledger(client, Keys(address.namespace), run)
    except (FleetError, redis.RedisError):
        return None
