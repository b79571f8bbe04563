"""One batcher leads, the others stand by: a lease in Redis, fenced by its token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.commands.core import Script

from wire.errors import LeaseLostError
from wire.keys import Keys
from wire.scripts import load_script

# KEYS[1] string leader, KEYS[2] string epoch; ARGV[1] our token, ARGV[2] lease in ms.
# Takes the lease if it is free, renews it if it is ours. Returns 1 if we lead, 2 if we have just begun to, 0 if
# somebody else does.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
-- A lease without an end, or with a far one, is no batcher's.
local left = redis.call('PTTL', KEYS[1])
if holder and left >= 0 and left <= 10 * ARGV[2] then return 0 end
-- First of all writes, because Redis refuses a script for want of memory only if its first write takes memory,
-- and who leads makes room.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('INCR', KEYS[2])
return 2
"""

# Releases the lease if it is ours.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class FencedScript:
    """A script that changes nothing unless this batcher leads.

    If it leads, the script does all that it is told to, even in a Redis that is full.
    """

    def __init__(self, leadership: Leadership, script: Script) -> None:
        self._leadership = leadership
        self._script = script

    def __call__(self, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:  # noqa: ANN401 (what Redis returns)
        """Run it.

        Raises:
            LeaseLostError: Somebody else leads, or nobody; nothing was changed.
        """
        outcome = self._script(keys=[self._leadership.key, *keys], args=[self._leadership.token, *args])
        if outcome is None:
            self._leadership.drop()
            raise LeaseLostError("this batcher no longer leads")
        return outcome


class Leadership:
    """This batcher's claim to lead.

    `held` is only a belief: between two looks the lease may lapse. What must not happen without it is a fenced script.
    """

    def __init__(self, client: redis.Redis, keys: Keys, token: str, *, lease_s: float, renew_s: float) -> None:
        self._client = client
        self._epoch = keys.epoch
        self.key = keys.leader
        self.token = token
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._hold = client.register_script(_HOLD)
        self._release = client.register_script(_RELEASE)
        self._renew_at = 0.0
        self.held = False

    def hold(self) -> bool:
        """Take or renew the lease, if it is time to.

        Returns:
            Whether this batcher has only now begun to lead, so that it must start from what Redis holds.
        """
        if self.held and time.monotonic() < self._renew_at:
            return False
        outcome = self._hold(keys=[self.key, self._epoch], args=[self.token, int(self._lease_s * 1000)])
        self._renew_at = time.monotonic() + self._renew_s
        began = outcome == 2 or (outcome == 1 and not self.held)  # noqa: PLR2004 (the script's own return values)
        self.held = outcome != 0
        return began

    def drop(self) -> None:
        """Stop assuming that it is held; the next `hold` finds out."""
        self.held = False

    def fenced(self, package: str, name: str, *functions: str) -> FencedScript:
        """A script of ours behind the fence.

        Args:
            functions: Scripts of `wire` that it calls by their name, as a function of keys and arguments.
        """
        called = (f"local function {one}(KEYS, ARGV)\n{load_script('wire', one)}\nend\n" for one in functions)
        text = "".join((load_script("batcher", "fence"), *called, load_script(package, name)))
        return FencedScript(self, self._client.register_script(text))

    def release(self) -> None:
        """Let a standby take over at once."""
        if self.held:
            self._release(keys=[self.key], args=[self.token])
            self.held = False
