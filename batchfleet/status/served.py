"""Which models the workers of a fleet serve."""

from __future__ import annotations

from typing import Any

import redis

from wire.address import RedisAddress
from wire.connection import connect
from wire.keys import Keys
from wire.redis_errors import translated


def served_models(address: RedisAddress) -> list[str]:
    """Names of the models that workers have reported, in alphabetical order."""
    keys = Keys(address.namespace)
    with translated(address), connect(address) as client:
        try:
            workers: Any = client.zrange(keys.workers, 0, -1)
            found: Any = [client.hget(keys.worker(name.decode("utf-8", "replace")), "model") for name in workers]
        except redis.ResponseError:
            # Something else is where reports belong; the batcher moves it aside.
            found = []
    return sorted({model.decode("utf-8", "replace") for model in found if model})
