"""From settings to the Redis that they name.

Apart from `to_options`, because a health check that comes every few seconds needs nothing else of it.
"""

from __future__ import annotations

import os

from batchfleet.settings.schema import Settings
from wire.address import RedisAddress
from wire.errors import UsageError


def redis_address(settings: Settings, url: str | None = None) -> RedisAddress:
    """The Redis of the settings, or the one at `url` with their other options.

    Raises:
        UsageError: No Redis is named.
    """
    redis = settings.redis
    url = url or redis.url
    if not url:
        raise UsageError(
            "no Redis is named, and no `batchfleet up` is running here; give --redis URL, or set redis.url or "
            "BATCHFLEET_REDIS_URL"
        )
    if url.startswith("rediss"):
        for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
            path = getattr(redis, name)
            if path is not None and not os.access(path, os.R_OK):
                raise UsageError(f"redis.{name}: {path} is not there or cannot be read")
    return RedisAddress(
        url=url,
        namespace=redis.namespace,
        username=redis.username,
        password=redis.password.get_secret_value() if redis.password else None,
        socket_timeout_s=redis.socket_timeout_s,
        ca_file=redis.tls_ca_file,
        cert_file=redis.tls_cert_file,
        key_file=redis.tls_key_file,
    )
