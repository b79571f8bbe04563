"""What the workers at one server tell each other of the questions that were there as it went away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
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
MOST_DIGITS = 9
LEASE_MS = 10_000
"""For so long a worker that is gone keeps others from asking a question alone."""
LOOK_S = 0.25
LONGEST_WAIT_S = 300.0
"""For a turn. Whoever waits longer asks without it, which convicts nobody."""
LONGEST_QUIET_S = 60.0
"""For one question. Then others go out although it is there."""
ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Seen:
    """What all workers have seen.

    Attributes:
        counts: Of crashes, by field.
        answers: Grows while others are answered; see `note_answers`.
        is_quiet: A question is asked alone, and nothing else may go out meanwhile.
    """

    counts: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    is_quiet: bool = False


class CrashLedger:
    """Of all workers of one model, in Redis. Where Redis does not answer, each worker goes by what it has seen itself.

    Connects when it is first used.

    Args:
        server: Whom this worker asks; one that asks another is not kept quiet.
    """

    def __init__(self, address: RedisAddress, model: str, server: str) -> None:
        keys = Keys(address.namespace)
        self._address = address
        self._counts, self._turn, self._quiet = keys.crashes(model), keys.turn(model), keys.quiet(model)
        self._server = server
        self._connected: redis.asyncio.Redis | None = None

    async def add(self, name: str, by: int) -> int:
        """More crashes of a question, with others there or alone, as `name` says; how many there were, if known."""
        async with self._client().pipeline(transaction=False) as pipe:
            pipe.hlen(self._counts)
            pipe.hincrby(self._counts, name, by)
            pipe.expire(self._counts, KEPT_S)
            reply = await self._told(pipe.execute())
        if reply is not None and int(reply[0]) > MOST_KEPT:
            await self.forget(name)
        return 0 if reply is None else int(reply[1])

    async def read(self) -> Seen | None:
        """What all have seen; None if Redis does not say."""
        async with self._client().pipeline(transaction=False) as pipe:
            pipe.hgetall(self._counts)
            pipe.get(self._quiet)
            reply = await self._told(pipe.execute())
        if reply is None:
            return None
        counts = {
            name.decode("utf-8", "replace"): int(count)
            for name, count in reply[0].items()
            if count.isdigit() and len(count) <= MOST_DIGITS
        }
        return Seen(counts, counts.pop(ANSWERS, 0), is_quiet=reply[1] == self._server.encode())

    async def note_answers(self) -> None:
        """This worker had answers since it last said so: the server does not go away whatever it is asked."""
        async with self._client().pipeline(transaction=False) as pipe:
            pipe.hincrby(self._counts, ANSWERS, 1)
            pipe.expire(self._counts, KEPT_S)
            await self._told(pipe.execute())

    async def forget(self, *fields: str) -> None:
        """Those of a question that has its record; without any, all."""
        client = self._client()
        await self._told(client.hdel(self._counts, *fields) if fields else client.delete(self._counts))

    async def end_quiet(self) -> None:
        """Others may go out again."""
        await self._told(self._client().delete(self._quiet))

    @contextlib.asynccontextmanager
    async def turn(self, *, quiet: bool = False) -> AsyncIterator[bool]:
        """Wait until no other worker asks a question alone, but not for ever; whether that is certain.

        `quiet`: nothing else may go out at any worker, from now until `end_quiet`, or until nobody has wanted that for
        `LEASE_MS`.
        """
        token = secrets.token_hex(8)
        client = self._client()
        give_up_at = time.monotonic() + LONGEST_WAIT_S
        while not (taken := await self._told(client.set(self._turn, token, nx=True, px=LEASE_MS), token)):
            if time.monotonic() > give_up_at:
                break
            await asyncio.sleep(LOOK_S)
        quiet = quiet and taken is True
        if quiet:
            await self._keep_quiet()
        renewing = asyncio.create_task(self._renew(token, quiet=quiet))
        try:
            yield taken is True
        finally:
            await cancel_and_wait([renewing])
            await self._hold(token, 0)

    async def close(self) -> None:
        if self._connected is not None:
            await self._connected.aclose()

    async def _renew(self, token: str, *, quiet: bool) -> None:
        loud_at = time.monotonic() + (LONGEST_QUIET_S if quiet else 0.0)
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            await self._hold(token, LEASE_MS)
            if time.monotonic() < loud_at:
                await self._keep_quiet()

    async def _keep_quiet(self) -> None:
        await self._told(self._client().set(self._quiet, self._server, px=LEASE_MS))

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
