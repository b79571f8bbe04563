"""What the workers at one server tell each other of the questions that were there as it went away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import redis.asyncio

from gpu_worker.cancellation import cancel_and_wait
from wire.address import RedisAddress
from wire.connection import connect_async
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated
from wire.scripts import load_script

log = logging.getLogger(__name__)

KEPT_S = 3600
MOST_KEPT = 20_000
LEASE_MS = 10_000
"""For so long a worker that is gone keeps others from asking a question alone."""
LOOK_S = 0.25
LONGEST_WAIT_S = 300.0
"""For a turn. Whoever waits longer asks without it, which convicts nobody."""


class CrashLedger:
    """Of all workers of one model, in Redis. Where Redis does not answer, each worker goes by what it has seen itself.

    Connects when it is first used.
    """

    def __init__(self, address: RedisAddress, model: str) -> None:
        keys = Keys(address.namespace)
        self._address = address
        self._counts, self._turn = keys.crashes(model), keys.turn(model)
        self._connected: redis.asyncio.Redis | None = None

    async def add(self, field: str, by: int) -> int:
        """More crashes of a question, with others there or alone, as `field` says; how many there were, if known."""
        async with self._client().pipeline(transaction=False) as pipe:
            pipe.hlen(self._counts)
            pipe.hincrby(self._counts, field, by)
            pipe.expire(self._counts, KEPT_S)
            reply = await self._told(pipe.execute())
        if reply is not None and int(reply[0]) > MOST_KEPT:
            await self.forget(field)
        return 0 if reply is None else int(reply[1])

    async def read(self) -> dict[str, int]:
        """All counts."""
        found: dict[bytes, bytes] | None = await self._told(self._client().hgetall(self._counts))
        return {
            field.decode("utf-8", "replace"): int(count)
            for field, count in (found or {}).items()
            if count.isdigit() and len(count) < len(str(MOST_KEPT))
        }

    async def forget(self, *fields: str) -> None:
        """Those of a question that has its record."""
        await self._told(self._client().hdel(self._counts, *fields))

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait until no other worker asks a question alone, but not for ever; whether that is certain."""
        token = secrets.token_hex(8)
        client = self._client()
        give_up_at = time.monotonic() + LONGEST_WAIT_S
        while not (taken := await self._told(client.set(self._turn, token, nx=True, px=LEASE_MS), token)):
            if time.monotonic() > give_up_at:
                break
            await asyncio.sleep(LOOK_S)
        renewing = asyncio.create_task(self._renew(token))
        try:
            yield taken is True
        finally:
            await cancel_and_wait([renewing])
            await self._hold(token, 0)

    async def close(self) -> None:
        if self._connected is not None:
            await self._connected.aclose()

    async def _renew(self, token: str) -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            await self._hold(token, LEASE_MS)

    async def _hold(self, token: str, milliseconds: int) -> None:
        script = load_script("gpu_worker.engines.openai", "hold_turn")
        await self._told(self._client().eval(script, 1, self._turn, token, milliseconds))

    async def _told(self, call: Awaitable[Any], otherwise: object = None) -> Any:  # noqa: ANN401 (whatever Redis says)
        try:
            with translated(self._address):
                return await call
        except (FleetError, redis.RedisError) as error:
            log.warning("crashes of the server are not shared with other workers: %s", error)
            return otherwise

    def _client(self) -> redis.asyncio.Redis:
        if self._connected is None:
            self._connected = connect_async(self._address)
        return self._connected
