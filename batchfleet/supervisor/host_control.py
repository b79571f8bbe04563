"""The hosts on which `batchfleet up` keeps a part of the fleet.

What each says of itself, and how it is asked to change.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from batchfleet.status.host_reports import read_host, read_hosts
from batchfleet.status.model import HostStatus
from batchfleet.supervisor.scale_rule import WorkerRange
from wire.errors import FleetError, UsageError
from wire.keys import Keys

REPORT_LIVES_FOR_HEARTBEATS = 10
ASKED_FOR_S = 60
"""How long a request waits for its host to hear of it."""
HOST_POLL_S = 0.1
STOP = "stop"
SCALE = "scale"


class HostSilentError(FleetError):
    """A host stopped reporting, or did not do in time what it was asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """`what` is SCALE or STOP; `token` tells it from others."""

    what: str
    workers: WorkerRange
    token: str


class HostReporter:
    """A host's side: it reports, and is told what somebody asked for."""

    def __init__(self, client: redis.Redis, keys: Keys, heartbeat_s: float) -> None:
        self.name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._client = client
        self._keys = keys
        self._ttl_ms = int(1000 * heartbeat_s * REPORT_LIVES_FOR_HEARTBEATS)
        self.heard = ""

    def report(self, fields: Mapping[str, str | int]) -> Request | None:
        """Say what there is now, as `HostStatus` has it; returns what is asked for, once."""
        seconds, micros = self._client.time()
        ahead_s = round(time.time() - seconds - micros / 1e6, 1)
        report: dict[Any, Any] = {**fields, "heard": self.heard, "clock_ahead_s": ahead_s}
        now_ms = seconds * 1000 + micros // 1000
        with self._client.pipeline(transaction=True) as pipe:
            # Hosts that were switched off take no leave.
            pipe.zremrangebyscore(self._keys.hosts, "-inf", now_ms - self._ttl_ms)
            # Nobody reports from the future: the server's clock was set back.
            pipe.zremrangebyscore(self._keys.hosts, now_ms + self._ttl_ms, "+inf")
            pipe.zadd(self._keys.hosts, {self.name: now_ms})
            pipe.pexpire(self._keys.hosts, self._ttl_ms)
            pipe.hset(self._keys.host(self.name), mapping=report)
            pipe.pexpire(self._keys.host(self.name), self._ttl_ms)
            pipe.getdel(self._keys.control(self.name))
            asked: Any = pipe.execute()[-1]
        request = _read(asked or b"")
        if request is not None:
            self.heard = request.token
        return request

    def leave(self) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.hosts, self.name)
            pipe.delete(self._keys.host(self.name), self._keys.control(self.name))
            pipe.execute()


def known_hosts(client: redis.Redis, keys: Keys) -> list[HostStatus]:
    """All that report, at least one.

    Raises:
        UsageError: There is none.
    """
    if not (known := read_hosts(client, keys)):
        raise UsageError(
            "no `batchfleet up` reports in this Redis; containers are scaled by `docker compose up --detach --scale "
            "gpu-worker=N`"
        )
    return known


def find_host(client: redis.Redis, keys: Keys, wanted: str | None) -> HostStatus:
    """The host of that name, whole or without its token; without a name, the only one.

    Raises:
        UsageError: There is none, or more than one.
    """
    known = known_hosts(client, keys)
    found = [host for host in known if wanted is None or wanted in {host.name, host.name.rpartition("-")[0]}]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(host.shown(known) for host in known)
    raise UsageError(
        f"which one? give --host NAME: {shown}" if found else f"no host {wanted!r} reports; there are: {shown}"
    )


def scale_host(
    client: redis.Redis,
    keys: Keys,
    host: HostStatus,
    workers: WorkerRange,
    *,
    patience_s: float,
    show: Callable[[HostStatus], None],
) -> None:
    """Have a host keep so many workers; returns when those that go have gone.

    Raises:
        HostSilentError: Not within `patience_s` seconds.
    """
    token = _ask(client, keys, host, SCALE, workers)
    deadline = time.monotonic() + patience_s
    while True:
        if (now := read_host(client, keys, host.name)) is None:
            raise HostSilentError(f"{host.name} stopped reporting")
        if now.heard == token:
            show(now)
            if not now.leaving:
                return
        if time.monotonic() > deadline:
            raise HostSilentError(
                f"{host.name} has not done it within {patience_s:.0f} s: {now.workers} workers, {now.leaving} on their "
                "way out"
            )
        time.sleep(HOST_POLL_S)


def stop_hosts(client: redis.Redis, keys: Keys, hosts: Sequence[HostStatus], *, patience_s: float) -> None:
    """Have hosts finish what they hold and stop, all at once; returns when they have taken leave.

    With a Redis of its own, that is the end of the Redis too.

    Raises:
        HostSilentError: Not within `patience_s` seconds.
    """
    for host in hosts:
        _ask(client, keys, host, STOP, WorkerRange(0, 0))
    deadline = time.monotonic() + patience_s
    try:
        for host in hosts:
            while client.exists(keys.host(host.name)):
                if time.monotonic() > deadline:
                    raise HostSilentError(f"{host.name} has not stopped within {patience_s:.0f} s")
                time.sleep(HOST_POLL_S)
    except (redis.ConnectionError, OSError):
        # Its Redis is gone, so it is.
        return


def _ask(client: redis.Redis, keys: Keys, host: HostStatus, what: str, workers: WorkerRange) -> str:
    token = secrets.token_hex(4)
    client.set(keys.control(host.name), f"{what} {workers} {token}", ex=ASKED_FOR_S)
    return token


def _read(asked: bytes) -> Request | None:
    """Whatever is no request of ours is none."""
    words = asked.decode("utf-8", "replace").split(" ")
    try:
        what, workers, token = words
        return Request(what, WorkerRange.parse(workers), token) if what in {SCALE, STOP} else None
    except ValueError:
        return None
