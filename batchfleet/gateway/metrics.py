"""`/metrics`: what Prometheus can scrape from a gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from batchfleet.gateway.store import Store
from batchfleet.gateway.traffic import TrafficCounts
from batchfleet.metrics import names

STATUSES = ("validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled")


class GatewayMetrics(Collector):
    """Runs in a thread: counts that are kept anyway, and one query of the data folder."""

    def __init__(self, counts: TrafficCounts, store: Store) -> None:
        self._counts = counts
        self._store = store

    def collect(self) -> Iterator[Metric]:
        # Copies, which CPython makes in one step: requests come in meanwhile.
        requests, routes = dict(self._counts.requests), dict(self._counts.routes)
        yield names.REQUESTS.values(*requests.items())
        yield names.REQUEST_SECONDS.histograms(*(((route,), traffic.seconds) for route, traffic in routes.items()))
        yield names.RECEIVED.values(*(((route,), traffic.received_bytes) for route, traffic in routes.items()))
        yield names.SENT.values(*(((route,), traffic.sent_bytes) for route, traffic in routes.items()))
        yield names.OPEN_REQUESTS.values(((), self._counts.open_requests))
        query = "SELECT status, count(*) AS number FROM batches GROUP BY status"
        found = {row["status"]: row["number"] for row in self._store.rows(query)}
        yield names.GATEWAY_BATCHES.values(*(((status,), found.get(status, 0)) for status in STATUSES))
        stored = self._store.row("SELECT count(*) AS number, coalesce(sum(bytes), 0) AS bytes FROM files")
        yield names.FILES.values(((), stored["number"] if stored else 0))
        yield names.FILE_BYTES.values(((), stored["bytes"] if stored else 0))


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.metrics = CollectorRegistry(auto_describe=False)
    app.state.metrics.register(GatewayMetrics(app.state.traffic, app.state.store))
    ProcessCollector(registry=app.state.metrics)
    app.state.scrape = asyncio.Lock()
    yield


async def metrics(request: Request) -> Response:
    """One scrape at a time: a second waits, and takes no thread from those who ask questions."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    async with request.app.state.scrape:
        return Response(await run_in_threadpool(encode, request.app.state.metrics), media_type=content_type)


routes: list[BaseRoute] = [Route("/metrics", metrics)]
