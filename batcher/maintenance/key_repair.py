"""Keeps every key of the fleet in the shape that `wire.keys` promises.

Whatever else is found there is moved aside, whole, into a dead letter. Everybody else only waits and tries again when a
key does not hold what it should (`QueueDamagedError`). So whatever a stranger writes into whichever key, there is one
place that deals with it.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
from redis.client import Pipeline

from wire.codec import NUMBER
from wire.keys import DEAD_LETTER_TTL_S, RQ_SETS, Keys
from wire.messages import EPOCH
from wire.scripts import load_script
from wire.streams import leaves_no_room

log = logging.getLogger(__name__)

KEYS_PER_SCAN = 500
"""Keys that Redis goes through in one step; a step is made with every heartbeat."""
FOR_EVER = -1
CHANGED_MEANWHILE = ("no such key", "WRONGTYPE")
"""What Redis says of a key that has ended, or become something else, since its type was asked for.

There will be another look.
"""
CLAIM_S = 60
"""A claim without an end is nobody's, as far as programs of ours go. But a person may see to it in time."""
RUN_NUMBERS = ("questions", "cursor", "accepted", "answered", "failed", "regenerated", "acknowledged")
PENDING_NUMBERS = ("questions", "bytes")
_Look = tuple[Callable[[Pipeline, str], object], Callable[[str, Any], str | None]]
OF_RUN: tuple[Callable[[Keys, str], str], ...] = (Keys.run, Keys.accepted, Keys.done, Keys.records, Keys.producer)


def wrong_number(names: Sequence[str], values: Sequence[bytes | None], *, all_needed: bool) -> str | None:
    """What is wrong with fields that have to be whole numbers, in words; None if nothing is."""
    for name, value in zip(names, values, strict=True):
        if value is None and all_needed:
            return f"field {name} is missing"
        if value is not None and not NUMBER.fullmatch(value):
            return f"field {name} holds no number but {value[:40]!r}"
    return None


class Mender:
    """Used by batchers: by the leading one all the time, by any other when what leadership itself rests on is damaged.

    Args:
        moved: Called when something was moved aside; batches may have been listed in it.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, *, max_dead_letters: int, moved: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._keys = keys
        self._max_dead_letters = max_dead_letters
        self._moved = moved
        self._set_aside = client.register_script(load_script("batcher.maintenance", "set_aside"))
        self._forget_queues = client.register_script(load_script("batcher.maintenance", "forget_queues"))
        self._cursor = 0

    def patrol(self) -> None:
        """Look at some keys, others than last time."""
        found: Any = self._client.scan(self._cursor, match=f"*{self._keys.namespace}:*", count=KEYS_PER_SCAN)
        self._cursor, names = found
        # The dead letters first: whatever else is moved aside needs a letter there.
        self._look_at([self._keys.dead.encode()])
        # The list of queues each time: this step reads it, and would fail for ever before the scan comes to it.
        self._look_at(dict.fromkeys([*names, self._keys.queues.encode(), *(name.encode() for name in RQ_SETS)]))
        members: Any = self._client.srandmember(self._keys.queues, KEYS_PER_SCAN)
        streams = [self._keys.questions_prefix.encode() + member for member in members]
        gone = self._forget_queues(keys=[self._keys.queues, *streams], args=members) if members else 0
        if gone:
            log.warning("dropped %d names in %s that are not streams of questions", gone, self._keys.queues)

    def search(self) -> None:
        """Look at all keys."""
        self._cursor = 0
        self.patrol()
        while self._cursor:
            self.patrol()

    def _look_at(self, names: Iterable[bytes]) -> None:
        # A name that is not UTF-8 cannot be ours, even if it starts like one.
        ours = [
            (name.decode(), expected)
            for name in names
            if (expected := self._keys.type_of(name.decode("utf-8", "replace")))
        ]
        with self._client.pipeline(transaction=False) as pipe:
            for name, _ in ours:
                pipe.type(name)
            types = [kind.decode() for kind in pipe.execute()]
        right = []
        for (name, expected), kind in zip(ours, types, strict=True):
            if kind == expected:
                right.append(name)
            elif kind != "none":
                self._move(name, f"a {kind} where a {expected} belongs", expected)
        self._look_into(right)

    def _look_into(self, names: Sequence[str]) -> None:
        """Look into all of these keys at once.

        With a round trip for each, a Redis that is some milliseconds away would keep the batcher from its work.
        """
        looks = [(name, look) for name in names if (look := self._look(name)) is not None]
        with self._client.pipeline(transaction=False) as pipe:
            for name, (ask, _) in looks:
                ask(pipe, name)
            found = pipe.execute(raise_on_error=False)
        for (name, (_, wrong_in)), value in zip(looks, found, strict=True):
            if isinstance(value, Exception):
                if not any(word in str(value) for word in CHANGED_MEANWHILE):
                    raise value
            elif wrong := wrong_in(name, value):
                self._move(name, wrong, "")

    def _look(self, name: str) -> _Look | None:
        """How to ask for what is in a key, and how to tell what is wrong with it; None where anything may be in it."""
        keys = self._keys
        if keys.requires_ttl(name):
            return Pipeline.ttl, self._wrong_end
        if keys.type_of(name) == "stream":
            return Pipeline.xinfo_stream, _wrong_stream
        if (run := keys.run_of(name)) is not None and name == keys.run(run):
            return _fields(("fingerprint", "epoch", *RUN_NUMBERS)), self._wrong_run
        counts: dict[str, _Look] = {
            keys.epoch: (Pipeline.get, lambda _, value: wrong_number(["epoch"], [value], all_needed=False)),
            keys.engine_deaths: (Pipeline.hgetall, _wrong_deaths),
            keys.pending: (
                _fields(PENDING_NUMBERS),
                lambda _, values: wrong_number(PENDING_NUMBERS, values, all_needed=False),
            ),
        }
        return counts.get(name)

    def _wrong_end(self, name: str, ttl_s: int) -> None:
        if ttl_s == FOR_EVER:
            log.warning("%a has no end; it gets one in %d s", name, CLAIM_S)
            self._client.expire(name, CLAIM_S)

    def _wrong_run(self, name: str, found: Sequence[bytes | None]) -> str | None:
        fingerprint, epoch, *values = found
        if fingerprint is None and not any(values) and not self._client.exists(name):
            return None  # It ended a moment ago.
        if not re.match(EPOCH, (epoch or b"").decode("utf-8", "replace")):
            return "its epoch is none"
        return wrong_number(RUN_NUMBERS, values, all_needed=True) or (
            None if _is_object(fingerprint) else "its fingerprint cannot be read"
        )

    def _move(self, name: str, reason: str, expected: str) -> None:
        """A run of which a part is damaged goes as a whole.

        Then its producer asks again what has no line, instead of waiting for what is lost.
        """
        run = self._keys.run_of(name)
        names = [name]
        if run is not None and name != self._keys.producer(run):
            names += [
                other for key in OF_RUN if (other := key(self._keys, run)) not in {name, self._keys.producer(run)}
            ]
            reason += f"; run {run} is forgotten, and its producer asks again what has no line"
        moves = [part for name in names for part in (name, self._keys.aside(secrets.token_hex(8)))]
        if self._set_aside(
            keys=[self._keys.dead, *moves], args=[reason, expected, self._max_dead_letters, DEAD_LETTER_TTL_S]
        ):
            log.error("dead letter: %s (%a); its content is in %s now", reason, name, moves[1])
            self._moved()


def _fields(names: Sequence[str]) -> Callable[[Pipeline, str], object]:
    return lambda pipe, name: pipe.hmget(name, list(names))


def _wrong_stream(_: str, info: Any) -> str | None:  # noqa: ANN401 (what redis-py makes of XINFO STREAM)
    # The id that was given last, even if its entry has been taken out.
    return "an entry whose id leaves no room for another" if leaves_no_room(info["last-generated-id"]) else None


def _wrong_deaths(_: str, deaths: Mapping[bytes, bytes]) -> str | None:
    return wrong_number(
        [model.decode("utf-8", "replace")[:100] for model in deaths], list(deaths.values()), all_needed=False
    )


def _is_object(text: bytes | None) -> bool:
    try:
        return isinstance(json.loads(text or b""), dict)
    except (ValueError, RecursionError):
        return False
