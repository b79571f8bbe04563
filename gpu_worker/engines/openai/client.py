"""One OpenAI-compatible server over HTTP.

What goes wrong becomes `FaultError` here, and nowhere does the key come out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2 as httpx

from gpu_worker.engines.openai.faults import Fault, connection_problem, reply_fault, status_fault
from gpu_worker.engines.openai.request_body import Request
from wire.errors import EngineBootError
from wire.messages import JsonObject

DEFAULT_PORT = 8000
"""vLLM's own."""

CONNECT_TIMEOUT_S = 10.0
LOOK_TIMEOUT_S = 5.0
"""For requests that only look: which models, which metrics."""
SEND_TIMEOUT_S = 60.0
"""Longest that the server may take no byte of a request."""
MAX_REPLY_BYTES = 64 * 1024 * 1024
"""An answer of 32 000 tokens with 20 log probabilities each fits in; what has no end does not."""
MAX_SHOWN_CHARS = 100
READABLE_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})

_GENERATED = re.compile(r"^vllm:(?:generation|prompt)_tokens_total\{[^}]*\} ([\d.e+]+)$", re.MULTILINE)


class FaultError(Exception):
    """An attempt failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def base_url_of(server: str, port: int | None) -> str:
    """Where the API is, from what users write: a host, `host:port`, a URL, or a URL with the API's path.

    Without a path, `/v1` is meant.

    Raises:
        EngineBootError: No such URL, or two different ports.
    """
    parts = _split(server)
    try:
        own_port = parts.port
    except ValueError as error:
        raise EngineBootError(f"server has no usable port: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise EngineBootError("server must be a host name or an http:// or https:// URL")
    if own_port is not None and port is not None and own_port != port:
        raise EngineBootError(f"server names port {own_port}, and port says {port}: remove one of them")
    number = own_port or port or (DEFAULT_PORT if parts.scheme == "http" and "://" not in server else None)
    host = parts.netloc.rpartition(":")[0] if own_port is not None else parts.netloc
    location = host if number is None else f"{host}:{number}"
    return f"{parts.scheme}://{location}{parts.path.rstrip('/') or '/v1'}"


class Server:
    """The four questions that we ask a server. Every method raises FaultError, and waits for no more than its timeout.

    Redirects are not followed: a prompt goes where the configuration says, and nowhere else.

    Args:
        most_open: Requests that may be open at once.
        request_timeout_s: Longest that one may take.
        stall_s: Longest silence in the middle of a reply.
    """

    def __init__(
        self, base_url: str, api_key: str | None, *, most_open: int, request_timeout_s: float, stall_s: float
    ) -> None:
        self._api_key = api_key
        self._request_timeout_s = request_timeout_s
        self._stall_s = stall_s
        self._base_url = base_url
        self._root = base_url.removesuffix("/v1")
        # One line for each of millions of requests is no log.
        for name in ("httpx", "httpx2"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "batchfleet"}
        parts = urlsplit(base_url)
        self._client = httpx.AsyncClient(
            # To read all certificates of a system takes a third of a second; without TLS none is needed, and none is
            # trusted.
            verify=parts.scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers={**headers, "Authorization": f"Bearer {api_key}"} if api_key else headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=most_open + 1),
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S, write=SEND_TIMEOUT_S),
        )
        self.shown_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        """For messages: without a password."""

    async def models(self) -> list[JsonObject]:
        """What it serves."""
        listed = await self._call("GET", "/models", None, timeout_s=LOOK_TIMEOUT_S)
        # Together's list stands alone.
        entries = listed.get("data") if isinstance(listed, dict) else listed
        if not isinstance(entries, list):
            # A server of another API, or one that says so that it is starting.
            sent = Fault(json.dumps(listed)).without(self._api_key).message[:MAX_SHOWN_CHARS]
            raise FaultError(Fault(f"in place of a list of models it sends {sent}"))
        return [entry for entry in entries if isinstance(entry, dict)]

    async def ask(self, request: Request, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - whatever JSON it sends
        # VLLM has this one beside its version.
        path = f"{self._root}{request.path}" if request.task == "classify" else request.path
        return await self._call("POST", path, request.body, timeout_s=timeout_s or self._request_timeout_s)

    async def count_tokens(self, request: Request) -> tuple[int, int]:
        """Of vLLM's server: how long the prompt of `request` is, and what the model takes, in tokens."""
        wanted = (
            "model",
            "prompt",
            "messages",
            "add_special_tokens",
            "add_generation_prompt",
            "continue_final_message",
            "chat_template_kwargs",
        )
        body = {name: request.body[name] for name in wanted if name in request.body}
        counted = await self._call("POST", f"{self._root}/tokenize", body, timeout_s=self._request_timeout_s)
        try:
            return int(counted["count"]), int(counted["max_model_len"])
        except (KeyError, TypeError, ValueError):
            raise FaultError(Fault("it counts no tokens")) from None

    async def tokens_so_far(self) -> float | None:
        """Of vLLM's server: tokens read and generated since it started; None if it does not say."""
        try:
            text = await self._call("GET", f"{self._root}/metrics", None, timeout_s=LOOK_TIMEOUT_S, is_json=False)
        except FaultError:
            return None
        counts = _GENERATED.findall(text)
        return sum(map(float, counts)) if counts else None

    async def close(self) -> None:
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, body: JsonObject | None, *, timeout_s: float, is_json: bool = True
    ) -> Any:  # noqa: ANN401
        url = path if "://" in path else self._base_url + path
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(method, url, content=content, headers=headers) as response,
            ):
                data = await self._read(response)
        except TimeoutError:
            raise FaultError(Fault(f"no answer within {timeout_s:g} s", is_timeout=True)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            broken = Fault(
                connection_problem(error),
                is_lost=isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError),
                is_unreached=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout),
            )
            raise FaultError(broken.without(self._api_key)) from None
        location = response.headers.get("location")
        fault = status_fault(response.status_code, response.headers, data, urljoin(url, location) if location else None)
        if fault is not None:
            raise FaultError(fault.without(self._api_key))
        text = data.decode("utf-8", "replace")
        if not is_json:
            return text
        try:
            made = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FaultError(Fault(f"its answer cannot be read: {error}").without(self._api_key)) from None
        if (fault := reply_fault(made)) is not None:
            raise FaultError(fault.without(self._api_key))
        return made

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, of at most MAX_REPLY_BYTES, whatever it may be compressed to."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in READABLE_ENCODINGS:
            raise FaultError(
                Fault(f"it answers in an encoding that was not asked for ({encoding[:40]})", response.status_code)
            )
        unpacker = None if encoding in {"", "identity"} else zlib.decompressobj(zlib.MAX_WBITS | 32)
        data = bytearray()
        async for chunk in self._chunks(response):
            try:
                data += chunk if unpacker is None else unpacker.decompress(chunk, MAX_REPLY_BYTES + 1 - len(data))
            except zlib.error as error:
                raise FaultError(Fault(f"its answer cannot be unpacked: {error}")) from None
            if len(data) > MAX_REPLY_BYTES:
                raise FaultError(Fault(f"its answer is longer than {MAX_REPLY_BYTES >> 20} MiB", response.status_code))
        return bytes(data)

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        chunks = response.aiter_raw()
        while True:
            try:
                async with asyncio.timeout(self._stall_s):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise FaultError(
                    Fault(f"its answer stopped in the middle, for {self._stall_s:g} s", is_timeout=True)
                ) from None
            if chunk is None:
                return
            yield chunk


def _split(server: str) -> SplitResult:
    try:
        return urlsplit(server.strip() if "://" in server else f"http://{server.strip()}")
    except ValueError as error:
        raise EngineBootError(f"server is no URL: {error}") from error
