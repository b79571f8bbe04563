"""What a batch asks of the queue beside its questions: to cancel or forget them, and whether others cancelled."""

from __future__ import annotations

import contextlib
import logging

import redis

from batchfleet.admin.control import cancel_run
from batchfleet.admin.forget import forget_run
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)


def cancel_in_queue(address: RedisAddress, batch_id: str, run_ttl_s: float) -> bool:
    """Take what is queued and in the engines out of there; whether the fleet has heard of it."""
    try:
        with translated(address), connect(address) as client:
            cancel_run(client, Keys(address.namespace), batch_id, run_ttl_s=int(run_ttl_s))
    except (FleetError, redis.RedisError) as error:
        log.warning("batch %s cannot be cancelled yet: %s", batch_id, error, extra={"run": batch_id})
        return False
    return True


def forget_in_queue(address: RedisAddress, batch_id: str) -> None:
    """Leave nothing of its run in Redis.

    Raises:
        FleetError: Redis is away.
    """
    with translated(address), connect(address) as client:
        forget_run(client, Keys(address.namespace), batch_id)


def was_cancelled_in_queue(address: RedisAddress, batch_id: str) -> bool:
    """`batchfleet cancel` ends a batch as well."""
    with contextlib.suppress(FleetError, redis.RedisError), translated(address), connect(address) as client:
        return bool(client.hexists(Keys(address.namespace).run(batch_id), "cancelled"))
    return False
