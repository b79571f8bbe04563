"""Who stopped reporting and never took leave: killed, switched off or cut off, often with the whole host.

Their reports lapse within seconds; this keeps for a day who it was, since when, and what they held, for `status`.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import redis

from wire.codec import whole_number
from wire.keys import Keys

log = logging.getLogger(__name__)

SILENT_HEARTBEATS = 5
"""Half of the time for which a report lives, so that what it said last can still be read."""
KEPT_S = 86_400
MOST_KEPT = 200

# KEYS[1] hash vanished; ARGV: 1 TTL (s), 2 name, 3 entry, then the names of entries that go.
_NOTE = """
-- First of all writes, because Redis refuses a script for want of memory only if its first write takes memory.
redis.call('HDEL', KEYS[1], ARGV[2], unpack(ARGV, 4))
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Vanished:
    """Kept by the leading batcher. An entry goes when whom it names reports again.

    Args:
        heartbeat_s: How often everybody reports.
    """

    def __init__(self, client: redis.Redis, keys: Keys, *, heartbeat_s: float) -> None:
        self._client = client
        self._keys = keys
        self._silent_ms = int(1000 * SILENT_HEARTBEATS * heartbeat_s)
        self._keep = client.register_script(_NOTE)
        self._entries: dict[str, dict[str, Any]] | None = None

    def restart(self) -> None:
        """Forget what was seen before this batcher began to lead."""
        self._entries = None

    def look(self) -> None:
        """Note who is silent, and strike out who is back; with every heartbeat."""
        seconds, micros = self._client.time()
        now_ms = seconds * 1000 + micros // 1000
        self._strike_out(now_ms - self._silent_ms)
        keys = self._keys
        for kind, reports, report in (("worker", keys.workers, keys.worker), ("up", keys.hosts, keys.host)):
            found: Any = self._client.zrangebyscore(reports, "-inf", now_ms - self._silent_ms, withscores=True)
            for raw, at_ms in reversed(found):
                name, at_s = raw.decode("utf-8", "replace"), at_ms / 1000
                if name in self._known() or self._is_too_old(at_s):
                    continue
                said: Any = self._client.hgetall(report(name))
                if said:
                    self._note(name, kind, at_s, said)

    def _note(self, name: str, kind: str, at_s: float, said: dict[bytes, bytes]) -> None:
        known = self._known()
        model, gpus = said.get(b"model", b"").decode("utf-8", "replace"), said.get(b"gpus", b"")
        in_flight = whole_number(said.get(b"in_flight"))
        entry = {"kind": kind, "at": round(at_s, 3), "model": model, "in_flight": in_flight}
        known[name] = entry | {"gpus": gpus.count(b",") + 1 if gpus else 0}
        old = [one for one, its in known.items() if at_s - its["at"] > KEPT_S]
        old += sorted(known.keys() - set(old), key=lambda one: float(known[one]["at"]))[
            : max(0, len(known) - MOST_KEPT)
        ]
        self._keep(keys=[self._keys.vanished], args=[KEPT_S, name, json.dumps(known[name]), *old])
        for one in old:
            known.pop(one)
        held = f"; others get its {in_flight} questions of {model}" if in_flight else ""
        log.warning("%s %s has stopped reporting%s", kind, name, held)

    def _is_too_old(self, at_s: float) -> bool:
        known = self._known()
        return len(known) >= MOST_KEPT and at_s <= min(entry["at"] for entry in known.values())

    def _strike_out(self, since_ms: int) -> None:
        known = self._known()
        if not known:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for name, entry in known.items():
                pipe.zscore(self._keys.hosts if entry["kind"] == "up" else self._keys.workers, name)
            scores = pipe.execute()
        if back := [name for name, at_ms in zip(known, scores, strict=True) if at_ms and at_ms > since_ms]:
            self._client.hdel(self._keys.vanished, *back)
            for name in back:
                log.info("%s %s reports again", known.pop(name)["kind"], name)

    def _known(self) -> dict[str, dict[str, Any]]:
        if self._entries is None:
            found: Any = self._client.hgetall(self._keys.vanished)
            read = {name.decode("utf-8", "replace"): _entry(text) for name, text in found.items()}
            self._entries = {name: entry for name, entry in read.items() if entry}
        return self._entries


def _entry(text: bytes) -> dict[str, Any] | None:
    """None for whatever is none of ours."""
    try:
        entry = json.loads(text)
        return {**entry, "kind": str(entry["kind"]), "at": float(entry["at"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
