"""Which models a fleet serves."""

from __future__ import annotations

from typing import Any

import redis

from batchfleet.status.replies import text
from wire.address import RedisAddress
from wire.connection import connect
from wire.keys import Keys
from wire.redis_errors import translated


def served_models(address: RedisAddress) -> list[str]:
    """Names of the models that workers serve, or hosts start workers for once there is work; in alphabetical order."""
    keys = Keys(address.namespace)
    with translated(address), connect(address) as client:
        try:
            workers: Any = client.zrange(keys.workers, 0, -1)
            hosts: Any = client.zrange(keys.hosts, 0, -1)
            reports = [keys.worker(text(name)) for name in workers] + [keys.host(text(name)) for name in hosts]
            found: Any = [client.hget(report, "model") for report in reports]
        except redis.ResponseError:
            # Something else is where reports belong; the batcher moves it aside.
            found = []
    return sorted({text(model) for model in found if model})
