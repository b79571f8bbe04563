"""The gateway's page and its metrics, asked of the app itself, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from batchfleet.gateway.api_keys import KeyRing, new_key, read_keys
from batchfleet.gateway.app import build_app
from batchfleet.gateway.options import GatewayOptions
from batchfleet.gateway.page.routes import MOST_LOOKS_AT_ONCE
from batchfleet.metrics import names
from batchfleet.settings.load import load_settings
from batchfleet.status.model import FleetStatus
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.submissions import KEYS
from wire.errors import QueueUnavailableError

NO_KEYS = KeyRing()
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@asynccontextmanager
async def a_gateway(
    server: EmbeddedServer, folder: Path, keys: KeyRing = NO_KEYS
) -> AsyncIterator[tuple[Starlette, httpx2.AsyncClient]]:
    """A gateway whose page has looked at the fleet once, and a browser's client for it."""
    settings = load_settings(None, {"BATCHFLEET_REDIS_URL": server.url}, {}).settings
    app = build_app(GatewayOptions(host="127.0.0.1", port=0, data_folder=folder, settings=settings, keys=keys))
    async with app.router.lifespan_context(app):
        while not app.state.page.observer.looks:
            await asyncio.sleep(0.01)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            yield app, client


def a_run(client: redis.Redis, run: str) -> None:
    """A run of which 50 questions were accepted and 10 answered."""
    client.hset(
        KEYS.run(run), mapping={"questions": "100", "accepted": "50", "answered": "10", "failed": "0", "created": "1"}
    )
    client.zadd(KEYS.runs, {run: 1e12})


async def test_many_viewers_are_one_reader(redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> None:
    """Two hundred looks at the page cost Redis what none would; beyond so many at once, viewers are told to wait."""
    async with a_gateway(redis_server, tmp_path) as (app, browser):
        before = app.state.page.observer.looks
        client.config_resetstat()
        replies = [await browser.post("/page/live") for _ in range(200)]
        asked = client.info("commandstats").get("cmdstat_zrevrange", {"calls": 0})["calls"]
        looks = app.state.page.observer.looks - before
        app.state.page.answering = MOST_LOOKS_AT_ONCE
        full = await browser.post("/page/live")

    assert {reply.status_code for reply in replies} == {200}
    # A look may have begun before, or not be over yet.
    assert asked <= looks + 1
    assert full.status_code == 503
    assert full.headers["retry-after"] == "2"


async def test_a_run_is_cancelled_from_its_page(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    """On loopback without keys the page ends a run, but not for another site's; a run that is not there is told of."""
    a_run(client, "gsm8k")
    async with a_gateway(redis_server, tmp_path) as (_, browser):
        foreign = await browser.post(
            "/page/cancel", content="id=gsm8k", headers=FORM | {"Origin": "http://evil.example"}
        )
        rebound = await browser.post("/page/cancel", content="id=gsm8k", headers=FORM | {"Host": "evil.example:8080"})
        untouched = client.hexists(KEYS.run("gsm8k"), "cancelled")
        done = await browser.post("/page/cancel", content="id=gsm8k", headers=FORM)
        missing = await browser.post("/page/cancel", content="id=%3Cb%3Enone", headers=FORM)
        large = await browser.post("/page/cancel", content="id=" + "x" * 5000, headers=FORM)

    assert (foreign.status_code, rebound.status_code, untouched) == (403, 403, False)
    assert done.text == "Run gsm8k is cancelled: 10 of 50 questions had their record."
    assert client.hexists(KEYS.run("gsm8k"), "cancelled")
    assert missing.status_code == 409
    assert "&lt;b&gt;none" in missing.text
    assert large.status_code == 413


async def test_with_keys_the_page_only_shows(redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> None:
    """Without a key the fleet can be looked at, and nothing ended; ids of batches are cut; a wrong key is told of."""
    batch = f"batch_{'0' * 32}"
    a_run(client, batch)
    key, line = new_key("lab")
    async with a_gateway(redis_server, tmp_path, read_keys([line], "keys")) as (_, browser):
        page = await browser.get("/")
        wrong = await browser.post("/page/live", content="key=wrong", headers=FORM)
        right = await browser.post("/page/live", content=f"key={key}", headers=FORM)
        cancelled = await browser.post("/page/cancel", content=f"id={batch}&key={key}", headers=FORM)

    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert batch[:12] in page.text
    assert batch not in page.text
    assert 'type="password"' in page.text
    assert wrong.status_code == 401
    assert right.status_code == 200
    assert cancelled.status_code == 403
    assert not client.hexists(KEYS.run(batch), "cancelled")


async def test_redis_away_is_said_and_gets_over(
    redis_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page goes on, says why it has no figures, and shows them again once Redis is back."""

    def away(*_: object) -> FleetStatus:
        raise QueueUnavailableError("Redis is <away>")

    async with a_gateway(redis_server, tmp_path) as (app, browser):
        observer = app.state.page.observer
        with monkeypatch.context() as patch:
            patch.setattr("batchfleet.gateway.page.observer.read_status", away)
            while not observer.trouble:
                await asyncio.sleep(0.01)
            gone = await browser.post("/page/live")
        while observer.trouble:
            await asyncio.sleep(0.01)
        back = await browser.post("/page/live")

    assert "Redis is &lt;away&gt;" in gone.text
    assert "Redis memory" not in gone.text
    assert "Redis memory" in back.text


@pytest.mark.parametrize("path", ["/page/style.css", "/page/htmx.js"])
async def test_what_the_page_needs_comes_from_the_gateway(
    redis_server: EmbeddedServer, tmp_path: Path, path: str
) -> None:
    """Its style and htmx are there, so that it works on a host without a way out."""
    async with a_gateway(redis_server, tmp_path) as (_, browser):
        assert len((await browser.get(path)).content) > 1000


async def test_requests_are_counted(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """By route, method and status, with refusals of the gate among them; unknown words become no labels."""
    async with a_gateway(redis_server, tmp_path) as (_, browser):
        for path in ("/health", "/v1/models/a", "/v1/models/b", "/nothing/1", "/nothing/2"):
            await browser.get(path)
        await browser.request("PROPFIND", "/health")
        await browser.get("/health", headers={"Host": "evil.example"})
        await browser.post("/page/cancel", content="id=1234567", headers=FORM)
        families = list(text_string_to_metric_families((await browser.get("/metrics")).text))
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }

    assert found["batchfleet_gateway_requests_total", "GET", "/health", "200"] == 1
    assert found["batchfleet_gateway_requests_total", "other", "/health", "405"] == 1
    assert found["batchfleet_gateway_requests_total", "GET", "/v1/models/{model:path}", "404"] == 2
    assert found["batchfleet_gateway_requests_total", "GET", "other", "404"] == 2
    assert found["batchfleet_gateway_requests_total", "GET", "other", "403"] == 1
    assert found["batchfleet_gateway_received_bytes_total", "/page/cancel"] == len("id=1234567")
    assert found["batchfleet_gateway_open_requests",] == 1
    assert found["batchfleet_gateway_request_seconds_count", "/health"] == 2
    gathered = {family.name for family in families}
    assert {metric.full.removesuffix("_total") for metric in names.GATEWAY[:5]} <= gathered
