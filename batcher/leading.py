"""One batcher leads, the others stand by: a lease in Redis, fenced by its token."""

from __future__ import annotations

import time
from collections.abc import Mapping

import redis
from redis.client import Pipeline

from wire.errors import LeaseLostError, QueueDamagedError
from wire.keys import Keys

# KEYS[1] string leader, KEYS[2] string epoch; ARGV[1] our token, ARGV[2] lease in ms.
# Takes the lease if it is free, renews it if it is ours. Returns 1 if we lead, 2 if we have just begun to, 0 if somebody else does.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
-- A lease without an end, or with a far one, is no batcher's.
local left = redis.call('PTTL', KEYS[1])
if holder and left >= 0 and left <= 10 * ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('INCR', KEYS[2])
return 2
"""

# Releases the lease if it is ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


# KEYS[1] string leader; then any keys. Returns who leads, then the types of the others.
_LOOK = """
local found = {redis.call('GET', KEYS[1])}
for i = 2, #KEYS do found[i] = redis.call('TYPE', KEYS[i]).ok end
return found
"""


class Leadership:
    """This batcher's claim to lead.

    `held` is only a belief: between two looks the lease may lapse. What must not happen without it is guarded by `fence`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, token: str, *, lease_s: float, renew_s: float) -> None:
        self._client = client
        self._keys = keys
        self._token = token
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._hold = client.register_script(_HOLD)
        self._release = client.register_script(_RELEASE)
        self._look = client.register_script(_LOOK)
        self._renew_at = 0.0
        self.held = False

    def hold(self) -> bool:
        """Take or renew the lease, if it is time to.

        Returns:
            Whether this batcher has only now begun to lead, so that it must start from what Redis holds.
        """
        if self.held and time.monotonic() < self._renew_at:
            return False
        outcome = self._hold(keys=[self._keys.leader, self._keys.epoch], args=[self._token, int(self._lease_s * 1000)])
        self._renew_at = time.monotonic() + self._renew_s
        began = outcome == 2 or (outcome == 1 and not self.held)  # noqa: PLR2004 (the script's own return values)
        self.held = outcome != 0
        return began

    def drop(self) -> None:
        """Stop believing; the next `hold` finds out."""
        self.held = False

    def fence(self, pipe: Pipeline, needs: Mapping[str, str] | None = None) -> None:
        """Make a transaction conditional on the lease: EXEC fails if the lease ends or changes hands before it.

        Leaves `pipe` watching; the caller goes on with `pipe.multi()`.

        Args:
            needs: Keys that the transaction adds to, with their types. Redis would do the rest of a transaction of which one command fails.

        Raises:
            LeaseLostError: Somebody else leads, or nobody.
            QueueDamagedError: One of `needs` is of another type.
        """
        needs = needs or {}
        pipe.watch(self._keys.leader)
        holder, *types = self._look(keys=[self._keys.leader, *needs], client=pipe)
        if holder != self._token.encode():
            self.drop()
            msg = "this batcher no longer leads"
            raise LeaseLostError(msg)
        for (key, needed), found in zip(needs.items(), types, strict=True):
            if found.decode() not in {needed, "none"}:
                msg = f"{key} is a {found.decode()} where a {needed} belongs"
                raise QueueDamagedError(msg)

    def release(self) -> None:
        """Let a standby take over at once."""
        if self.held:
            self._release(keys=[self._keys.leader], args=[self._token])
            self.held = False
