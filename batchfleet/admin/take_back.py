"""Takes a run back, so that the same command begins it anew."""

from __future__ import annotations

import time

import redis

from batchfleet.admin.control import cancel_run
from batchfleet.admin.forget import forget_run
from batchfleet.runs.ledger import read_ledger
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

CANCEL_WAIT_S = 10.0
LEDGER_POLL_S = 0.1


def take_back(address: RedisAddress, run: str, run_ttl_s: float) -> bool:
    """Cancel a run that nobody collects, wait until nothing of it is queued, and make Redis forget it.

    Returns:
        Whether it is gone. If nothing of it moves for long, it is forgotten nevertheless: its workers answer for
            nobody.
    """
    keys = Keys(address.namespace)
    try:
        with translated(address), connect(address) as client:
            cancel_run(client, keys, run, run_ttl_s=int(run_ttl_s))
            until = time.monotonic() + CANCEL_WAIT_S
            while read_ledger(client, keys, run).missing and time.monotonic() < until:
                time.sleep(LEDGER_POLL_S)
            forget_run(client, keys, run)
    except (FleetError, redis.RedisError):
        return False
    return True
