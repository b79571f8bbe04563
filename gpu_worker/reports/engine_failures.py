"""Records in Redis that an engine died or could not boot, as its worker ends."""

from __future__ import annotations

import asyncio
import logging

import redis.asyncio

from wire.address import RedisAddress
from wire.errors import EngineBootError, EngineDeadError, EngineUnusableError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

KEPT = 100
TROUBLE_TTL_S = 86_400
MESSAGE_CHARS = 500
TELL_S = 2.0


async def record_engine_failure(
    client: redis.asyncio.Redis,
    address: RedisAddress,
    worker: str,
    model: str,
    error: EngineDeadError | EngineUnusableError | EngineBootError,
) -> None:
    """Record an engine's failure in Redis; without Redis, do nothing."""
    keys = Keys(address.namespace)
    kind = {EngineDeadError: "engine_dead", EngineUnusableError: "engine_unusable"}.get(type(error), "engine_boot")
    entry = {"kind": kind, "worker": worker, "model": model, "message": str(error)[:MESSAGE_CHARS]}
    try:
        async with asyncio.timeout(TELL_S):
            with translated(address):
                async with client.pipeline(transaction=False) as pipe:
                    pipe.xadd(keys.troubles, entry, maxlen=KEPT, approximate=True)  # type: ignore[arg-type]  # a dict of texts is one of fields
                    pipe.expire(keys.troubles, TROUBLE_TTL_S)
                    pipe.hincrby(keys.engine_deaths, model, 1)
                    await pipe.execute()
    except (TimeoutError, QueueUnavailableError) as failed:
        log.info("not written down: %s", failed or "timeout")
