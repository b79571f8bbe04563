"""Waits for a server to come up, and finds the model there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gpu_worker.engines.engine import EngineState
from gpu_worker.engines.openai.client import FaultError, Server
from gpu_worker.engines.openai.faults import MISSING, Blame, Fault, unusable_because
from gpu_worker.engines.openai.request_body import Request, Served
from wire.errors import EngineBootError, nearest
from wire.messages import JsonObject

log = logging.getLogger(__name__)

SHOWN_EVERY_S = 10.0
LOOK_AGAIN_S = 0.5
FIRST_TOKEN_S = 30.0
"""Longest that a question for one token may take."""


async def served_by(server: Server, model: str, timeout_s: float, show: Callable[[EngineState], None]) -> Served:
    """What the server says of the model, as soon as it answers.

    Args:
        timeout_s: How long a server that is not up yet is waited for.
        show: Called with what is waited for.

    Raises:
        EngineBootError: It does not come up, waiting does not help, or it does not serve the model.
    """
    began = shown = time.monotonic()
    while True:
        try:
            if models := await server.models():
                return _served(models, model, server.shown_url)
            fault = Fault("it serves no model")
        except FaultError as error:
            fault = error.fault
        if fault.status in MISSING and await _answers(server, model):
            log.info("%s lists no models; %r is taken to be one", server.shown_url, model)
            return Served(model)
        now = time.monotonic()
        if fault.blame not in {Blame.PASSING, Blame.TOO_MANY}:
            raise EngineBootError(_hopeless(fault, server.shown_url))
        if now - began + LOOK_AGAIN_S > timeout_s:
            msg = f"no answer from {server.shown_url} within {timeout_s:g} s (server_startup_timeout): {fault.told}; "
            raise EngineBootError(msg + "check server and port in model.generator_settings, and that the server runs")
        pause_s = max(LOOK_AGAIN_S, fault.retry_after_s or 0.0)
        show(EngineState("waiting", f"{server.shown_url}: {fault.told}", now + pause_s))
        if now - shown >= SHOWN_EVERY_S:
            shown = now
            log.info("waiting for %s, %.0f of at most %g s: %s", server.shown_url, now - began, timeout_s, fault.told)
        await asyncio.sleep(pause_s)


async def _answers(server: Server, model: str) -> bool:
    """Whether it takes a question for one token, be it to refuse it; some serve no list of models."""
    body: JsonObject = {"model": model, "max_tokens": 1}
    chat = Request("/chat/completions", {**body, "messages": [{"role": "user", "content": "Hello"}]}, {}, chat=True)
    for request in (chat, Request("/completions", {**body, "prompt": "Hello"}, {}, chat=False)):
        try:
            await server.ask(request, FIRST_TOKEN_S)
        except FaultError as error:
            if error.fault.blame in {Blame.QUESTION, Blame.TOO_MANY}:
                return True
        else:
            return True
    return False


def _served(models: list[JsonObject], wanted: str, url: str) -> Served:
    ids = tuple(str(model.get("id")) for model in models)
    found = next((model for model in models if model.get("id") == wanted), None)
    if found is None:
        there = ", ".join(repr(name) for name in ids)
        raise EngineBootError(
            f"{url} does not serve a model {wanted!r}{nearest(wanted, ids)}; it serves {there}: set "
            "model.generator_settings.model"
        )
    limit = found.get("max_model_len")
    return Served(wanted, found.get("owned_by") == "vllm", limit if isinstance(limit, int) else None, ids)


def _hopeless(fault: Fault, url: str) -> str:
    if fault.status in MISSING or fault.blame is Blame.QUESTION:
        return (
            f"there is no OpenAI-compatible API at {url} ({fault.told}): check server and port in "
            "model.generator_settings"
        )
    return unusable_because(fault, url, chat=True)
