"""The rooms of the gateway, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import ModuleType

from starlette.applications import Starlette
from starlette.middleware import Middleware

from batchfleet.gateway import batches, files, health, metrics, models, online, page, uploads
from batchfleet.gateway.errors import HANDLERS
from batchfleet.gateway.gate import Gate
from batchfleet.gateway.options import GatewayOptions
from batchfleet.gateway.traffic import Traffic, TrafficCounts
from batchfleet.settings.to_options import redis_address
from wire.connection import connect_async
from wire.keys import Keys

ROOMS: tuple[ModuleType, ...] = (models, online, files, uploads, batches, health, metrics, page)
"""Each has `routes`, and may have `lifespan(app)`. They are started in this order, and stopped in the other."""


def build_app(options: GatewayOptions) -> Starlette:
    """The app of a gateway.

    While it runs, `app.state` has `options`, `data_folder`, `traffic`, `redis` (an asyncio client) and
    `redis_keys`.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        address = redis_address(options.settings)
        app.state.redis_keys = Keys(address.namespace)
        async with contextlib.AsyncExitStack() as rooms:
            app.state.redis = await rooms.enter_async_context(connect_async(address))
            for room in ROOMS:
                if hasattr(room, "lifespan"):
                    await rooms.enter_async_context(room.lifespan(app))
            yield

    traffic = TrafficCounts()
    app = Starlette(
        routes=[route for room in ROOMS for route in room.routes],
        middleware=[Middleware(Traffic, traffic), Middleware(Gate, options.keys, options.limits)],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.state.options = options
    app.state.traffic = traffic
    app.state.data_folder = options.data_folder
    return app
