"""One batcher leads, the others stand by: a lease in Redis, fenced by its token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import redis
from redis.client import Pipeline

from wire.errors import LeaseLostError, QueueDamagedError
from wire.keys import Keys
from wire.scripts import load_script

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
-- First of all writes, because Redis refuses a script for want of memory only at a first write that takes memory: who leads makes room.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('INCR', KEYS[2])
return 2
"""

# Releases the lease if it is ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


_WITHIN = (("batcher", "place"), ("batcher.maintenance", "shrink"), ("wire", "publish"))
"""Scripts that may be among the changes of a commit."""


class Leadership:
    """This batcher's claim to lead.

    `held` is only a belief: between two looks the lease may lapse. What must not happen without it goes through `commit`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, token: str, *, lease_s: float, renew_s: float) -> None:
        self._client = client
        self._keys = keys
        self._token = token
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._hold = client.register_script(_HOLD)
        self._release = client.register_script(_RELEASE)
        within = {text: client.register_script(text).sha for text in (load_script(*name) for name in _WITHIN)}
        functions = (f"scripts['{sha}'] = function(KEYS, ARGV)\n{text}\nend\n" for text, sha in within.items())
        self._commit = client.register_script(
            f"local scripts = {{}}\n{''.join(functions)}{load_script('batcher', 'commit')}"
        )
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

    def commit(self, changes: Pipeline, needs: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 (what Redis returns)
        """Make changes in one step if this batcher leads, also in a Redis that is full. Should one fail, those behind it are not made.

        Args:
            changes: Commands that were queued, and scripts of `_WITHIN`; this pipeline is not executed.
            needs: Keys that are added to, with their types.

        Returns:
            What the last command returned.

        Raises:
            LeaseLostError: Somebody else leads, or nobody; nothing was changed.
            QueueDamagedError: One of `needs` is of another type; nothing was changed.
        """
        needs = needs or {}
        words = [word for command, _ in changes.command_stack for word in (len(command), *command)]
        outcome, *found = self._commit(keys=[self._keys.leader, *needs], args=[self._token, *needs.values(), *words])
        if outcome == 0:
            self.drop()
            msg = "this batcher no longer leads"
            raise LeaseLostError(msg)
        if outcome < 0:
            key, kind = (word.decode("utf-8", "replace") for word in found)
            msg = f"{key} is a {kind} where a {needs[key]} belongs"
            raise QueueDamagedError(msg)
        return found[0] if found else None

    def release(self) -> None:
        """Let a standby take over at once."""
        if self.held:
            self._release(keys=[self._keys.leader], args=[self._token])
            self.held = False
