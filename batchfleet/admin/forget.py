"""Makes Redis forget a run, so that the same command asks again what has no line."""

from __future__ import annotations

from typing import Any

import redis

from batchfleet.runs.ledger import no_run
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import UsageError
from wire.keys import Keys
from wire.redis_errors import translated

# KEYS[1] string run:ID:producer, KEYS[2] hash run:ID, KEYS[3] zset runs, KEYS[4] set cancelled, then the other keys of
#     the run; ARGV[1] run id.
# Returns {1 if there was one}, or {0, who collects it}.
_FORGET = """
local holder = redis.call('GET', KEYS[1])
if holder then return {0, holder} end
redis.call('ZREM', KEYS[3], ARGV[1])
-- As wire.keys.run_member names it. pcall: something else may be under the name of the run.
local epoch = redis.pcall('HGET', KEYS[2], 'epoch')
if type(epoch) ~= 'string' then epoch = '' end
redis.call('SREM', KEYS[4], epoch == '' and ARGV[1] or ARGV[1] .. ':' .. epoch)
local there = redis.call('UNLINK', KEYS[2])
for i = 5, #KEYS do there = there + redis.call('UNLINK', KEYS[i]) end
return {math.min(there, 1)}
"""


def forget_if_there(address: RedisAddress, run: str) -> None:
    """Delete all keys of a run, if Redis has it.

    Raises:
        UsageError: A producer collects it.
    """
    keys = Keys(address.namespace)
    with translated(address), connect(address) as client:
        if client.exists(keys.run(run)):
            forget_run(client, keys, run)


def forget_run(client: redis.Redis, keys: Keys, run: str) -> None:
    """Delete all keys of a run.

    What is still queued of it is answered for nobody, even if the run is submitted again by then.

    Raises:
        UsageError: There is no such run, or a producer collects it.
    """
    names = [
        keys.producer(run),
        keys.run(run),
        keys.runs,
        keys.cancelled,
        keys.accepted(run),
        keys.done(run),
        keys.records(run),
    ]
    reply: Any = client.register_script(_FORGET)(keys=names, args=[run])
    if not reply[0] and len(reply) > 1:
        holder = reply[1].decode("utf-8", "replace")[:100]
        raise UsageError(
            f"run {run} is being collected ({holder!a}); stop its producer first, or wait until its claim ends (15 s "
            "after its death)"
        )
    if not reply[0]:
        raise no_run(client, keys, run)
