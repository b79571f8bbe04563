"""What hosts with a `batchfleet up` last said of themselves."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from batchfleet.status.model import HostStatus
from batchfleet.status.replies import Batch, fraction, number
from wire.keys import Keys


def read_hosts(client: redis.Redis, keys: Keys) -> list[HostStatus]:
    """Those that report, by name."""
    batch = Batch(client)
    names = batch.ask("ZRANGE", keys.hosts, 0, -1)
    batch.send()
    batch = Batch(client)
    asked = {name: batch.ask("HGETALL", keys.host(name)) for name in sorted(names.texts())}
    batch.send()
    return [host_status(name, reply.fields()) for name, reply in asked.items() if reply.value]


def read_host(client: redis.Redis, keys: Keys, name: str) -> HostStatus | None:
    """One of them; None if it does not report."""
    batch = Batch(client)
    reply = batch.ask("HGETALL", keys.host(name))
    batch.send()
    return host_status(name, reply.fields()) if reply.value else None


def host_status(name: str, fields: Mapping[str, str]) -> HostStatus:
    """From its report. One of an older version has a fixed number of workers, and does not say of what model."""
    workers = max(0, number(fields.get("workers")))
    least, most, wanted = (max(0, number(fields.get(end, workers))) for end in ("least", "most", "wanted"))
    return HostStatus(
        name,
        workers,
        max(0, number(fields.get("leaving"))),
        fields.get("model", ""),
        least,
        most,
        wanted,
        fields.get("heard", ""),
        fraction(fields.get("clock_ahead_s")),
    )
