"""Hears at once that a run was cancelled, so that its questions do not stay in the engine until the next heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import redis.asyncio

from wire.address import BLOCK_S, RedisAddress
from wire.errors import QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated
from wire.streams import entries_of

log = logging.getLogger(__name__)

SOONEST_S = 0.1
"""Shortest time between two heartbeats, however much news there is."""
PAUSE_S = 1.0
"""After an error. Meanwhile heartbeats bring what is missed here."""


class CancelNews:
    """Wakes the heartbeat early, which then reads the news."""

    def __init__(self, client: redis.asyncio.Redis, address: RedisAddress) -> None:
        self._client = client
        self._address = address
        self._key = Keys(address.namespace).news
        self._came = asyncio.Event()

    async def listen(self) -> None:
        """Wait for news, for ever."""
        # Old news costs one heartbeat; what comes while we are not yet listening would cost the wait for it.
        seen: bytes | str = "0"
        while True:
            try:
                with translated(self._address):
                    news = entries_of(await self._client.xread({self._key: seen}, block=int(1000 * BLOCK_S)))
            except QueueUnavailableError as error:
                log.debug("no news: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            for _, entries in news:
                seen = entries[-1][0]
                self._came.set()

    async def wait(self, most_s: float) -> None:
        """Return after `most_s` seconds, or soon if there is news."""
        soonest_s = min(SOONEST_S, most_s)
        await asyncio.sleep(soonest_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s - soonest_s):
                await self._came.wait()
        self._came.clear()
