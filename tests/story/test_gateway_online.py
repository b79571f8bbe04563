"""The gateway as programs use it that know only OpenAI: its official SDK, unmodified, and a real fleet behind."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import redis

from batchfleet.gateway.api_keys import new_key
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from tests.gateways import a_request, as_file, begin
from tests.processes import PATIENCE_S, Processes, wait_until
from tests.redis_servers import make_certificates

ASK: Any = [{"role": "user", "content": "Name a noble gas."}]
HANG: Any = [{"role": "user", "content": "HANG"}]
JOBS_IN_QUEUE = 64


class GatewayOfFleet:
    """A fleet of one stub worker, and a gateway before it; `queue` is its Redis."""

    def __init__(self, processes: Processes, opened: contextlib.ExitStack) -> None:
        self.processes = processes
        self._opened = opened
        self.queue = opened.enter_context(redis.Redis.from_url(processes.url, protocol=2))
        processes.batcher()
        processes.worker(STUB_HANG_ON="HANG")
        self.address = processes.gateway()
        wait_until(lambda: self.in_flight() == 0, "the worker reports")

    def in_flight(self) -> int | None:
        """Questions in the worker's engine; None if no worker reports."""
        found = [self.queue.hget(f"batchfleet:worker:{name.decode()}", "in_flight") for name in self._workers()]
        return None if None in found or not found else sum(map(int, found))

    def sdk(self, address: str | None = None, **options: Any) -> openai.OpenAI:  # noqa: ANN401 (of the SDK)
        url = f"{address or self.address}/v1"
        sdk = openai.OpenAI(base_url=url, **{"api_key": "any", "max_retries": 0, "timeout": PATIENCE_S, **options})
        return self._opened.enter_context(sdk)

    def async_sdk(self, **options: Any) -> openai.AsyncOpenAI:  # noqa: ANN401 (as above)
        url = f"{self.address}/v1"
        return openai.AsyncOpenAI(base_url=url, **{"api_key": "any", "timeout": PATIENCE_S, **options})

    def _workers(self) -> list[bytes]:
        found: Any = self.queue.zrange("batchfleet:workers", 0, -1)
        return list(found)


@pytest.fixture(scope="module")
def fleet() -> Iterator[GatewayOfFleet]:
    """One fleet for all tests here, as they ask and do no harm."""
    with tempfile.TemporaryDirectory(prefix="bf-test-") as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        try:
            with Processes(server.url, Path(folder)) as processes, contextlib.ExitStack() as opened:
                yield GatewayOfFleet(processes, opened)
        finally:
            assert server.process is not None
            stop_all([server.process], grace_s=5)


def test_the_sdk_gets_answers(fleet: GatewayOfFleet) -> None:
    """Chats, prompts and lists of prompts; each has the id, model, usage and reason that the SDK promises."""
    sdk = fleet.sdk()
    chat = sdk.chat.completions.create(model="stub", messages=ASK, max_tokens=3, seed=1, user="me")
    two = sdk.completions.create(model="stub", prompt=["one", "two"], max_tokens=2)
    models = sdk.models.list().data

    assert [model.id for model in models] == ["stub"]
    assert sdk.models.retrieve("stub") == models[0]
    assert (chat.object, chat.model, chat.choices[0].finish_reason) == ("chat.completion", "stub", "length")
    assert chat.choices[0].message.content
    assert chat.usage is not None
    assert (chat.usage.completion_tokens, chat.usage.total_tokens) == (3, chat.usage.prompt_tokens + 3)
    assert chat.created >= models[0].created > 0
    assert chat._request_id
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.usage is not None
    assert two.usage.completion_tokens == 4
    assert chat.id != two.id


async def test_a_stream_says_the_same_at_once(fleet: GatewayOfFleet) -> None:
    """One event for each choice, whole; one with the usage if it is asked for; and the end."""
    async with fleet.async_sdk() as sdk:
        whole = await sdk.chat.completions.create(model="stub", messages=ASK)
        stream = await sdk.chat.completions.create(
            model="stub", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        events = [event async for event in stream]

    said, counted = events
    assert said.object == "chat.completion.chunk"
    assert said.choices[0].delta.content == whole.choices[0].message.content
    assert said.choices[0].finish_reason == whole.choices[0].finish_reason
    assert (counted.choices, counted.usage) == ([], whole.usage)


def test_what_cannot_be_asked_is_named(fleet: GatewayOfFleet) -> None:
    """The SDK raises its own class for each, with the parameter that is meant."""
    chat = fleet.sdk().chat.completions
    refused: list[tuple[dict[str, Any], type[openai.APIStatusError], str, str]] = [
        ({"model": "nope"}, openai.NotFoundError, "model", "model_not_found"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature", "unknown_parameter"),
        ({"temperature": -1}, openai.BadRequestError, "temperature", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, openai.BadRequestError, "stream_options", "invalid_value"),
        ({"messages": None}, openai.BadRequestError, "messages", "missing_required_parameter"),
    ]
    for options, kind, param, code in refused:
        with pytest.raises(kind) as caught:
            chat.create(**{"model": "stub", "messages": ASK, **options})
        assert (caught.value.param, caught.value.code) == (param, code)
    with pytest.raises(openai.BadRequestError, match="could not parse"):
        fleet.sdk().post("/chat/completions", cast_to=object, body=None, options={"headers": {"x": "y"}})


async def test_a_client_that_leaves_frees_its_place_in_the_engine(fleet: GatewayOfFleet) -> None:
    """Its question never ends by itself; the worker takes it out."""
    async with fleet.async_sdk() as sdk:
        asking = asyncio.create_task(sdk.chat.completions.create(model="stub", messages=HANG))
        while fleet.in_flight() != 1:
            await asyncio.sleep(0.01)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

    wait_until(lambda: fleet.in_flight() == 0, "the worker has dropped it")


async def test_a_full_gateway_says_when_to_come_again_and_the_sdk_does(fleet: GatewayOfFleet) -> None:
    """Beyond its open requests the SDK is told 429 with Retry-After, and its own retries succeed once there is room."""
    address = fleet.processes.gateway("--max-open-requests", "1", name="full-gateway")
    url = f"{address}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=60, timeout=PATIENCE_S) as sdk:
        hanging = asyncio.create_task(sdk.chat.completions.create(model="stub", messages=HANG))
        while fleet.in_flight() != 1:
            await asyncio.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.with_options(max_retries=0).models.list()
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert httpx2.get(f"{address}/health").is_success
        retrying = asyncio.create_task(sdk.chat.completions.create(model="stub", messages=ASK))
        hanging.cancel()
        assert (await retrying).choices
    fleet.processes.kill("full-gateway")


def test_a_key_is_needed_where_there_are_keys(fleet: GatewayOfFleet, tmp_path: Path) -> None:
    """Without, or with another, the SDK raises its AuthenticationError; the log has none of them; over TLS."""
    key, line = new_key("lab")
    make_certificates(tmp_path)
    files = ("--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    address = fleet.processes.gateway(*files, name="closed-gateway", GATEWAY_KEYS=line)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with httpx2.Client(verify=trusting) as client:
        assert client.get(f"{address}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert client.get(f"{address}/v1/models", headers={b"Authorization": b"Bearer \xff"}).status_code == 401
        with pytest.raises(openai.AuthenticationError):
            fleet.sdk(address, api_key="sk-wrong", http_client=client).models.list()
        assert fleet.sdk(address, api_key=key, http_client=client).models.list().data[0].id == "stub"

    assert address.startswith("https://")
    assert key not in fleet.processes.log("closed-gateway")
    fleet.processes.kill("closed-gateway")


def test_a_model_without_workers_is_503_and_then_answers(fleet: GatewayOfFleet) -> None:
    """The SDK's retries bridge the time until a worker is back; SIGTERM ends the gateway in order, with code 0."""
    address = fleet.processes.gateway(name="last-gateway")
    sdk = fleet.sdk(address)
    assert sdk.models.list().data
    fleet.processes.started["worker"].terminate()
    fleet.processes.finish("worker")
    wait_until(lambda: not sdk.models.list().data, "the worker is forgotten")

    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="stub", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
    fleet.processes.worker()

    assert sdk.with_options(max_retries=60).chat.completions.create(model="stub", messages=ASK).choices
    fleet.processes.started["last-gateway"].terminate()
    assert fleet.processes.finish("last-gateway") == 0


def test_online_questions_overtake_a_batch_that_saturates_the_fleet(
    tmp_path: Path, redis_server: EmbeddedServer
) -> None:
    """They are answered while less of the batch is than stands in the queue before them.

    Without priority they would wait for all 64 batch jobs there; the clock of the stub, not the machine, sets the pace.
    """
    slow = {"STUB_STEP_S": "0.05", "STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "20", "STUB_MAX_NUM_SEQS": "2"}
    with Processes(redis_server.url, tmp_path) as processes, redis.Redis.from_url(redis_server.url) as queue:
        processes.batcher()
        processes.worker(**slow)
        sdk = openai.OpenAI(base_url=f"{processes.gateway()}/v1", api_key="any", timeout=PATIENCE_S)
        batch = begin(sdk, as_file(a_request(f"r{number}", f"Number {number}?") for number in range(2000)))
        wait_until(lambda: queue.llen("rq:queue:batchfleet:stub") == JOBS_IN_QUEUE, "the queue is full")

        def done() -> int:
            counts = sdk.batches.retrieve(batch.id).request_counts
            return counts.completed if counts else 0

        wait_until(done, "the batch is being answered")
        before = done()
        said = [sdk.chat.completions.create(model="stub", messages=ASK, max_tokens=3) for _ in range(3)]
        meanwhile = done() - before
        processes.kill("worker")
        processes.kill("gateway")

    assert all(one.choices for one in said)
    assert meanwhile < JOBS_IN_QUEUE
