"""`/v1/models`: what the live workers of the fleet serve."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.replies import JsonReply
from wire.codec import whole_number
from wire.keys import Keys, parse_queue_member

FRESH_S = 1.0
"""For how long a look at the workers holds."""
COME_AGAIN_S = 5
"""When a model whose workers are away may be back, for `Retry-After`."""
MOST_KNOWN = 1000
NOT_SERVING = frozenset({"", "dead", "unusable"})


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its live workers report it. `capacity`: the most questions that they have in flight together."""

    name: str
    workers: int
    capacity: int


class Models:
    """The models of one fleet; looked up in Redis once a second at most. `scaled`: served without any worker, too."""

    def __init__(
        self, client: redis.asyncio.Redis, keys: Keys, configured: str | None, scaled: Collection[str] = ()
    ) -> None:
        self._client = client
        self._scaled = {name.encode() for name in scaled}
        self._keys = keys
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._served: dict[str, ServedModel] = {}
        self._known: dict[str, int] = {configured: int(time.time())} if configured else {}

    async def served(self) -> dict[str, ServedModel]:
        """By name.

        Workers that boot or wait for their engine count, and hosts that start some once there is work: they will answer
        what is queued.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at > FRESH_S:
                self._served = await self._look()
                self._looked_at = time.monotonic()
                for name in self._served:
                    self._know(name)
        return self._served

    async def find(self, name: str) -> ServedModel:
        """A model that is asked for.

        Raises:
            ApiError: No worker serves it: 503 if it is known nevertheless, else 404.
        """
        if (model := (await self.served()).get(name)) is not None:
            return model
        if name not in self._known:
            queues: Any = await self._client.execute_command("SMEMBERS", self._keys.queues)
            for member in queues:
                if (parsed := parse_queue_member(member.decode("utf-8", "replace"))) is not None:
                    self._know(parsed[0])
        if name in self._known:
            words = f"No worker of the fleet serves the model '{name}' at the moment. Try again soon."
            raise ApiError(503, words, code="model_unavailable", headers={"Retry-After": str(COME_AGAIN_S)})
        raise unknown_model(name)

    def created(self, name: str) -> int:
        """When this gateway first saw the model, in Unix seconds."""
        return self._known.get(name, 0)

    def _know(self, name: str) -> None:
        if len(self._known) < MOST_KNOWN:
            self._known.setdefault(name, int(time.time()))

    async def _look(self) -> dict[str, ServedModel]:
        try:
            names: Any = await self._client.zrange(self._keys.workers, 0, -1)
            hosts: Any = await self._client.zrange(self._keys.hosts, 0, -1)
            async with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(self._keys.worker(name.decode("utf-8", "replace")), "model", "state", "capacity")
                for name in hosts:
                    pipe.hget(self._keys.host(name.decode("utf-8", "replace")), "model")
                found: Any = await pipe.execute()
        except redis.ResponseError:
            # Something else is where reports belong; the batcher moves it aside.
            return self._served
        served: dict[str, ServedModel] = {}
        reports = found[: len(names)]
        for model, state, capacity in reports:
            if model and (state or b"").decode("utf-8", "replace") not in NOT_SERVING:
                name = model.decode("utf-8", "replace")
                known = served.get(name, ServedModel(name, 0, 0))
                served[name] = ServedModel(name, known.workers + 1, known.capacity + whole_number(capacity))
        # Workers are started for these once there is work. Where some report, it is for them to say whether they serve.
        announced = {model for model in found[len(names) :] if model} | self._scaled
        for model in announced - {model for model, _, _ in reports}:
            name = model.decode("utf-8", "replace")
            served[name] = ServedModel(name, 0, 0)
        return served


def unknown_model(name: str) -> ApiError:
    words = (
        f"The model '{name[:200]}' does not exist: no worker of this fleet has served it. GET /v1/models lists those "
        "that there are."
    )
    return ApiError(404, words, param="model", code="model_not_found")


async def list_models(request: Request) -> Response:
    models: Models = request.app.state.models
    return JsonReply({"object": "list", "data": [_shown(models, name) for name in sorted(await models.served())]})


async def show_model(request: Request) -> Response:
    models: Models = request.app.state.models
    name = request.path_params["model"]
    if name not in await models.served():
        raise unknown_model(name)
    return JsonReply(_shown(models, name))


def _shown(models: Models, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": models.created(name), "owned_by": "batchfleet"}


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Puts the models at `app.state.models`."""
    settings = app.state.options.settings
    scaled = settings.processing.scaled_models
    app.state.models = Models(app.state.redis, app.state.redis_keys, settings.model_name, scaled)
    yield


routes: list[BaseRoute] = [Route("/v1/models", list_models), Route("/v1/models/{model:path}", show_model)]
