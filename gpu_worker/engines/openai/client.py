"""One OpenAI-compatible server, through OpenAI's own client library. Its errors become `FaultError` here, and nowhere does the key come out."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

import openai

from gpu_worker.engines.openai.requests import Request
from gpu_worker.engines.openai.retry import Fault, retry_after_s
from wire.errors import EngineBootError
from wire.messages import JsonObject

DEFAULT_PORT = 8000
"""vLLM's own."""

CONNECT_TIMEOUT_S = 10.0
LOOK_TIMEOUT_S = 5.0
"""For requests that only look: which models, which metrics."""

_MAX_QUOTED_CHARS = 600
_NO_KEY = "none"
_GENERATED = re.compile(r"^vllm:(?:generation|prompt)_tokens_total\{[^}]*\} ([\d.e+]+)$", re.MULTILINE)


class FaultError(Exception):
    """An attempt failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def base_url_of(server: str, port: int | None) -> str:
    """Where the API is, from what users write: a host, `host:port`, a URL, or a URL with the API's path. Without a path, `/v1` is meant.

    Raises:
        EngineBootError: No such URL, or two different ports.
    """
    parts = _split(server)
    try:
        own_port = parts.port
    except ValueError as error:
        msg = f"server has no usable port: {error}"
        raise EngineBootError(msg) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = "server must be a host name or an http:// or https:// URL"
        raise EngineBootError(msg)
    if own_port is not None and port is not None and own_port != port:
        msg = f"server names port {own_port}, and port says {port}: remove one of them"
        raise EngineBootError(msg)
    number = own_port or port or (DEFAULT_PORT if parts.scheme == "http" and "://" not in server else None)
    host = parts.netloc.rpartition(":")[0] if own_port is not None else parts.netloc
    location = host if number is None else f"{host}:{number}"
    return f"{parts.scheme}://{location}{parts.path.rstrip('/') or '/v1'}"


class Server:
    """The server's four questions that we ask. Every method raises FaultError, and waits for no more than its timeout."""

    def __init__(self, base_url: str, api_key: str | None, *, request_timeout_s: float) -> None:
        self._api_key = api_key
        self._request_timeout_s = request_timeout_s
        self._root = base_url.removesuffix("/v1")
        self._look_timeout = openai.Timeout(LOOK_TIMEOUT_S)
        # One line for each of millions of requests is no log.
        for name in ("httpx", "httpx2"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or _NO_KEY,
            max_retries=0,  # Ours know when the whole server is gone, and stop for all requests at once.
            timeout=openai.Timeout(request_timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        parts = urlsplit(base_url)
        self.shown_url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        """For messages: without a password."""

    async def models(self) -> list[JsonObject]:
        """What it serves."""
        listed = await self._call("GET", "/models", None, look=True)
        entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(entries, list):
            raise FaultError(Fault("its list of models has not the form of OpenAI's"))
        return [entry for entry in entries if isinstance(entry, dict)]

    async def ask(self, request: Request) -> Any:  # noqa: ANN401 - whatever JSON it sends
        return await self._call("POST", request.path, request.body)

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
        counted = await self._call("POST", f"{self._root}/tokenize", body)
        try:
            return int(counted["count"]), int(counted["max_model_len"])
        except (KeyError, TypeError, ValueError):
            raise FaultError(Fault("it counts no tokens")) from None

    async def tokens_so_far(self) -> float | None:
        """Of vLLM's server: tokens read and generated since it started; None if it does not say."""
        try:
            text = await self._call("GET", f"{self._root}/metrics", None, look=True)
        except FaultError as error:
            if error.fault.status is None:
                raise
            return None
        counts = _GENERATED.findall(text) if isinstance(text, str) else []
        return sum(map(float, counts)) if counts else None

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, method: str, path: str, body: JsonObject | None, *, look: bool = False) -> Any:  # noqa: ANN401
        options: Any = {"timeout": self._look_timeout} if look else {}
        try:
            if method == "GET":
                return await self._client.get(path, cast_to=object, options=options)
            return await self._client.post(path, cast_to=object, body=body, options=options)
        except openai.APIStatusError as error:
            raise FaultError(self._status_fault(error)) from None
        except openai.APITimeoutError:
            allowed_s = LOOK_TIMEOUT_S if look else self._request_timeout_s
            raise FaultError(Fault(f"no answer within {allowed_s:g} s")) from None
        except openai.APIConnectionError as error:
            raise FaultError(Fault(self._quoted(connection_trouble(error)))) from None
        except (openai.OpenAIError, ValueError) as error:
            # A body that is cut short or no JSON.
            raise FaultError(Fault(self._quoted(f"its answer cannot be read: {error}"))) from None

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        body = error.body
        told = body.get("message") or body.get("detail") if isinstance(body, dict) else body
        return Fault(
            self._quoted(str(told or error.message)),
            error.status_code,
            retry_after_s(error.response.headers),
            error.param if isinstance(error.param, str) else None,
            error.code,
        )

    def _quoted(self, text: str) -> str:
        if self._api_key:
            text = text.replace(self._api_key, "***")
        text = " ".join(text.split())
        return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}..."


def connection_trouble(error: BaseException) -> str:
    """What happened on the network, in words. The client library says "Connection error.", those below it more, the system at the end most."""
    causes = list(_causes(error))
    said = next((str(cause) for cause in causes if str(cause)), str(error))
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused: nothing listens there"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"no such host ({said})"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"no TLS connection ({said})"
    lost = any(
        "ProtocolError" in type(cause).__name__ or isinstance(cause, ConnectionResetError | BrokenPipeError)
        for cause in causes
    )
    return f"the connection was lost before the whole answer had come ({said})" if lost else f"no connection ({said})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Nearest first. A name with several addresses has a group of errors, one for each."""
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from _causes(cause)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield one
            yield from _causes(one)


def _split(server: str) -> SplitResult:
    try:
        return urlsplit(server.strip() if "://" in server else f"http://{server.strip()}")
    except ValueError as error:
        msg = f"server is no URL: {error}"
        raise EngineBootError(msg) from error
