"""An existing server that speaks OpenAI's API: vLLM's own, or any other. The same requests and records as vLLM in process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field

from gpu_worker.engines.engine import Completion, Refusal
from gpu_worker.engines.openai.client import FaultError, Server, base_url_of
from gpu_worker.engines.openai.requests import Request, Served, complete_defaults, request_for
from gpu_worker.engines.openai.responses import completion_of
from gpu_worker.engines.openai.retry import Fault, Unusable, given_up, pause_s, verdict
from gpu_worker.engines.refusals import prompt_too_long, unknown_adapter
from gpu_worker.engines.sampling_params import configured_params
from wire.errors import EngineBootError, EngineDeadError, nearest
from wire.messages import JsonObject, Question

__all__ = ["OpenAIEngine", "OpenAIOptions"]

log = logging.getLogger(__name__)

WAITING_SHOWN_EVERY_S = 10.0
LOOK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Which server, and how patient to be with it. Times in seconds.

    Attributes:
        server: Host, `host:port`, or URL with or without the API's path.
        port: Where `server` names none; 8000 for a bare host.
        api_key: Appears nowhere but in the requests' header.
        model: As the server names it.
        sampling_defaults: Used where a question brings none.
        max_in_flight: Most requests at once; the worker's default capacity is half as many more.
        request_timeout_s: Longest that one attempt may take.
        retry_total_s: For how long a question that fails again and again is tried, counted from its first failure.
        first_pause_s, longest_pause_s: Between attempts: doubled each time, from the one to the other.
        startup_timeout_s: How long a server that is not up yet is waited for.
        pulse_s: How often a server that works for us without finishing anything is asked whether it moves.
    """

    server: str
    model: str
    port: int | None = None
    api_key: str | None = field(default=None, repr=False)
    sampling_defaults: JsonObject = field(default_factory=dict)
    max_in_flight: int = 64
    request_timeout_s: float = 600.0
    retry_total_s: float = 300.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    startup_timeout_s: float = 600.0
    pulse_s: float = 2.0


@dataclass(slots=True)
class _Trouble:
    """What one question has been through: attempts that failed, and when the first of them did."""

    attempts: int = 0
    since: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.since


class OpenAIEngine:
    """Asks over HTTP, at most `max_in_flight` questions at once."""

    kind = "openai"

    def __init__(self, options: OpenAIOptions) -> None:
        self.model = options.model
        self.max_num_seqs = options.max_in_flight
        self._options = options
        self._places = asyncio.Semaphore(options.max_in_flight)
        self._server: Server | None = None
        self._served = Served(options.model)
        self._pulse: asyncio.Task[None] | None = None
        self._progress = 0
        self._asking = 0
        self._failing = 0
        self._last_success = float("-inf")
        self._dead: str | None = "it was not started"
        self._died = asyncio.Event()

    async def start(self) -> None:
        options = self._options
        defaults = configured_params(options.sampling_defaults)
        self._server = Server(
            base_url_of(options.server, options.port), options.api_key, request_timeout_s=options.request_timeout_s
        )
        try:
            self._served = _served(await self._models(self._server), options.model, self._server.shown_url)
        except BaseException:
            await self.stop()
            raise
        self._defaults = complete_defaults(defaults, self._served)
        self._dead = None
        self._pulse = asyncio.create_task(self._poll_progress(self._server))
        log.info(
            "model %s at %s%s", options.model, self._server.shown_url, ", a vLLM server" if self._served.is_vllm else ""
        )

    async def answer(self, question: Question) -> Completion | Refusal:
        server = self._living()
        request = request_for(question, self._defaults, self._served)
        if isinstance(request, Refusal):
            return request
        async with self._places:
            self._asking += 1
            try:
                outcome = await self._ask(server, request)
            finally:
                self._asking -= 1
        if isinstance(outcome, Refusal) and outcome.kind == "unknown_adapter":
            return unknown_adapter(
                str(request.params.get("lora")), [name for name in self._served.ids if name != self.model]
            )
        return outcome

    def progress(self) -> int:
        return self._progress

    def check(self) -> None:
        self._living()

    async def stop(self) -> None:
        if self._dead is None:
            self._die("it was stopped")
        if self._pulse is not None:
            self._pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pulse
            self._pulse = None
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def _models(self, server: Server) -> list[JsonObject]:
        """What the server serves; waits for it to come up."""
        began = shown = time.monotonic()
        while True:
            try:
                return await server.models()
            except FaultError as error:
                fault = error.fault
            now = time.monotonic()
            _raise_if_hopeless(fault, server.shown_url)
            if now - began + LOOK_AGAIN_S > self._options.startup_timeout_s:
                msg = f"no answer from {server.shown_url} within {self._options.startup_timeout_s:g} s (server_startup_timeout): {_told(fault)}; "
                raise EngineBootError(
                    msg + "check server and port in model.generator_settings, and that the server runs"
                )
            if now - shown >= WAITING_SHOWN_EVERY_S:
                shown = now
                log.info(
                    "waiting for %s, %.0f of at most %g s: %s",
                    server.shown_url,
                    now - began,
                    self._options.startup_timeout_s,
                    _told(fault),
                )
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _ask(self, server: Server, request: Request) -> Completion | Refusal:
        """Ask until there is an answer, a refusal, or no patience left."""
        trouble = _Trouble()
        try:
            while True:
                try:
                    return await self._attempt(server, request)
                except FaultError as error:
                    fault = error.fault
                decision = verdict(fault, request.params, chat=request.chat)
                if isinstance(decision, Unusable):
                    raise self._die(decision.reason)
                if isinstance(decision, Refusal):
                    shorter = await self._measured(server, request, decision)
                    if isinstance(shorter, Refusal):
                        return shorter
                    request = shorter
                elif not await self._wait_in(trouble, fault, decision.least_s):
                    await self._raise_if_gone(server, fault, trouble)
                    return given_up(fault, trouble.attempts, trouble.seconds())
        finally:
            self._failing -= 1 if trouble.attempts else 0

    async def _wait_in(self, trouble: _Trouble, fault: Fault, least_s: float) -> bool:
        """Wait before the next attempt; False at once if there is no time left for one."""
        options = self._options
        if trouble.attempts == 0:
            trouble.since = time.monotonic()
            self._failing += 1
        trouble.attempts += 1
        wait_s = pause_s(
            trouble.attempts, first_s=options.first_pause_s, longest_s=options.longest_pause_s, least_s=least_s
        )
        if trouble.seconds() + wait_s > options.retry_total_s:
            return False
        log.debug("attempt %d failed (%s); another in %.1f s", trouble.attempts, _told(fault), wait_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._died.wait()
        return True

    async def _attempt(self, server: Server, request: Request) -> Completion:
        self._living()
        response = await server.ask(request)
        completion = completion_of(response, request, self._served)
        if completion is None:
            raise FaultError(Fault("its answer has not the form of OpenAI's"))
        self._last_success = time.monotonic()
        self._progress += 1
        return completion

    async def _measured(self, server: Server, request: Request, refusal: Refusal) -> Request | Refusal:
        """A refusal for length, with the prompt's true length; or, from servers that count the answer too, a request for what still fits."""
        if refusal.kind != "prompt_too_long" or not self._served.is_vllm:
            return refusal
        try:
            tokens, limit = await server.count_tokens(request)
        except FaultError:
            return refusal
        asked, room = request.params.get("max_tokens"), limit - tokens
        if room < 1:
            return prompt_too_long(tokens, limit)
        return request.capped(room) if isinstance(asked, int) and asked > room else refusal

    async def _raise_if_gone(self, server: Server, fault: Fault, trouble: _Trouble) -> None:
        """Tell a question that fails from a server that does."""
        if self._last_success >= trouble.since:
            return
        seconds = trouble.seconds()
        if fault.status is not None and 1 < self._asking <= self._failing:
            msg = f"{server.shown_url} has answered nothing for {seconds:.0f} s, while {self._failing} requests failed; last: {_told(fault)}"
            raise self._die(msg)
        try:
            await server.models()
        except FaultError as error:
            msg = f"{server.shown_url} has answered nothing for {seconds:.0f} s: {_told(error.fault)}"
            raise self._die(msg) from None

    async def _poll_progress(self, server: Server) -> None:
        """Make progress visible while requests take long: by vLLM's token counters where they are seen to move, else by trusting the timeout."""
        before: float | None = None
        counter_moves = False
        seen = self._progress
        while True:
            await asyncio.sleep(self._options.pulse_s)
            if self._asking <= self._failing or self._progress != seen:
                seen = self._progress
                continue
            tokens: float | None = None
            with contextlib.suppress(FaultError):
                tokens = await server.tokens_so_far() if self._served.is_vllm else None
            moved = tokens is not None and before is not None and tokens != before
            counter_moves = counter_moves or moved
            before = tokens if tokens is not None else before
            if moved or not counter_moves:
                self._progress += 1
            seen = self._progress

    def _living(self) -> Server:
        if self._dead is not None or self._server is None:
            msg = f"the server cannot be used: {self._dead}"
            raise EngineDeadError(msg)
        return self._server

    def _die(self, reason: str) -> EngineDeadError:
        if self._dead is None:
            self._dead = reason
            self._died.set()
        return EngineDeadError(f"the server cannot be used: {self._dead}")


def _served(models: list[JsonObject], wanted: str, url: str) -> Served:
    """Raises EngineBootError if the model is not among them."""
    ids = tuple(str(model.get("id")) for model in models)
    found = next((model for model in models if model.get("id") == wanted), None)
    if found is None:
        there = ", ".join(repr(name) for name in ids) or "none at all"
        msg = f"{url} does not serve a model {wanted!r}{nearest(wanted, ids)}; it serves {there}: set model.generator_settings.model"
        raise EngineBootError(msg)
    limit = found.get("max_model_len")
    return Served(wanted, found.get("owned_by") == "vllm", limit if isinstance(limit, int) else None, ids)


def _raise_if_hopeless(fault: Fault, url: str) -> None:
    """Waiting helps against a server that is starting, not against these."""
    if fault.status in {401, 403}:
        msg = f"{url} refuses the API key (HTTP {fault.status}): set model.generator_settings.api_key (BATCHFLEET_API_KEY)"
        raise EngineBootError(msg)
    if fault.status is not None and fault.status < 500 and fault.status not in {408, 425, 429}:  # noqa: PLR2004 - HTTP's server errors start there
        msg = f"there is no OpenAI-compatible API at {url} ({_told(fault)}): check server and port in model.generator_settings"
        raise EngineBootError(msg)


def _told(fault: Fault) -> str:
    return fault.message if fault.status is None else f"HTTP {fault.status}: {fault.message}"
