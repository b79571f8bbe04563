"""A question -> what vLLM generates from -> a completion."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace
from pydantic import JsonValue

from gpu_worker.engines import refusals
from gpu_worker.engines.engine import Completion, Refusal
from gpu_worker.engines.sampling_params import PROMPT_SHAPING, effective_params, untaken
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.arguments import Serving
from gpu_worker.engines.vllm.parsers import TOOL_PARAMETERS, Chat, Parsers
from wire.messages import JsonObject, Question, Usage
from wire.parameters import CHAT_ONLY, names_of

log = logging.getLogger(__name__)

LONGEST_INLINE_CHARS = 4096
"""Longer prompts are rendered in vLLM's thread, so that the event loop does not wait.

For shorter ones the way there costs more.
"""

NOT_TAKEN = names_of("servers", "other servers")
NOTHING_TO_A_MODEL = names_of("bookkeeping")

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON lacks; as in vLLM's server."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `AsyncLLM.generate` is given, and the parameters for the record.

    `prompt`, `sampling`, `lora`: vLLM's own types. `more`: its other arguments. `chat`: how the answer is read; None as
    it stands.
    """

    prompt: Any
    sampling: Any
    lora: Any
    params: JsonObject
    chat: Chat | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """`prompt`: what vLLM calls an engine input. `template`: what the chat template was given."""

    prompt: Any
    chat: Chat | None = None
    template: JsonObject = field(default_factory=dict)


class Requests:
    """Makes requests for one running engine."""

    def __init__(
        self,
        llm: Any,  # noqa: ANN401
        serving: Serving,
        defaults: JsonObject,
        adapters: Mapping[str, Any],
        own: JsonObject | None = None,
        parsers: Parsers | None = None,
    ) -> None:
        """`defaults`: canonical and complete. `adapters`: vLLM's LoRA requests by name.

        `own`: sampling that the model asks for, where all is null.
        """
        self._renderer = llm.renderer
        self._serving = serving
        self._defaults = defaults
        self._adapters = adapters
        self._own = own
        self._parsers = parsers or Parsers(llm, serving)
        self._max_model_len = int(llm.vllm_config.model_config.max_model_len)
        self._vocabulary_tokens = int(llm.vllm_config.model_config.get_vocab_size())

    async def request_for(self, question: Question) -> Request | Refusal:
        """The request, its `max_tokens` no larger than what fits behind the prompt.

        Or why the engine would not serve it.
        """
        chat = question.messages is not None
        params = effective_params(question.params, self._defaults, chat=chat, own=self._own)
        if isinstance(params, Refusal):
            return params
        refusal = self._unknown(params)
        if refusal is not None:
            return refusal
        params = {name: value for name, value in params.items() if name not in NOTHING_TO_A_MODEL}
        try:
            rendered = await self._rendered(question, params)
        except library.request_errors() as error:
            return refusals.refusal_of(str(error), params, chat=chat)
        except Exception as error:  # noqa: BLE001 - templates, and whatever a multimodal prompt makes vLLM fetch, raise anything
            log.warning("question %s of run %s could not be rendered: %s", question.request_id, question.run, error)
            told = f"{type(error).__name__}: {error}"
            return refusals.bad_messages(told) if chat else refusals.engine_failed(told)
        return rendered if isinstance(rendered, Refusal) else self._fitted(rendered, params, chat=chat)

    def _unknown(self, params: JsonObject) -> Refusal | None:
        """What `params` name that this engine does not have."""
        for name in sorted(NOT_TAKEN & params.keys()):
            return untaken(name, "vLLM in this process")
        adapter = params.get("lora")
        if isinstance(adapter, str) and adapter not in self._adapters:
            return refusals.unknown_adapter(adapter, self._adapters)
        return refusals.unknown_tokens(params, self._vocabulary_tokens)

    async def _rendered(self, question: Question, params: JsonObject) -> _Rendered | Refusal:
        if question.messages is not None:
            problem = refusals.messages_problem(question.messages)
            return (
                refusals.bad_messages(problem)
                if problem is not None
                else await self._rendered_chat(question.messages, params)
            )
        if not question.prompt:
            return refusals.EMPTY_PROMPT
        text = question.prompt
        tokenizing = self._tokenizing(self._renderer.default_cmpl_tok_params, params)
        if len(text) > LONGEST_INLINE_CHARS:
            return _Rendered((await self._renderer.render_cmpl_async([{"prompt": text}], tokenizing))[0])
        return _Rendered(self._renderer.render_cmpl([{"prompt": text}], tokenizing)[0])

    async def _rendered_chat(self, messages: Sequence[JsonObject], params: JsonObject) -> _Rendered | Refusal:
        arguments: JsonObject = {
            "add_generation_prompt": not params.get("continue_final_message", False),
            **self._serving.template_arguments,
        }
        own = params.get("chat_template_kwargs")
        arguments.update(own if isinstance(own, dict) else {})
        shown = CHAT_ONLY - TOOL_PARAMETERS - {"chat_template_kwargs"}
        arguments.update({name: params[name] for name in shown if name in params})
        chat = self._parsers.chat(messages, params, arguments)
        if isinstance(chat, Refusal):
            return chat
        if chat is not None and chat.tools is not None:
            arguments["tools"] = chat.tools
        chat_params = library.chat_params(self._serving.chat_template, self._serving.content_format, arguments)
        tokenizing = self._tokenizing(self._renderer.default_chat_tok_params, params)
        _, prompts = await self._renderer.render_chat_async([messages], chat_params, tokenizing)
        return _Rendered(prompts[0], chat, arguments)

    def _tokenizing(self, defaults: Any, params: JsonObject) -> Any:  # noqa: ANN401
        # Without a limit: vLLM would stop counting at its own, and the refusal is to say how long the prompt is.
        changes: dict[str, Any] = {"max_total_tokens": None}
        if "add_special_tokens" in params:
            changes["add_special_tokens"] = params["add_special_tokens"]
        return dataclasses.replace(defaults, **changes)

    def _fitted(self, rendered: _Rendered, params: JsonObject, *, chat: bool) -> Request | Refusal:
        prompt, reading = rendered.prompt, rendered.chat
        token_ids = prompt.get("prompt_token_ids")
        if token_ids is not None:
            room = self._max_model_len - len(token_ids)
            if room < 1:
                return refusals.prompt_too_long(len(token_ids), self._max_model_len)
            asked = params.get("max_tokens")
            params = {**params, "max_tokens": min(asked, room) if isinstance(asked, int) else room}
        try:
            for_parsers = {} if reading is None else reading.sampling
            sampling = library.sampling_params(**{**_sampler_arguments(params), **for_parsers})
        except library.request_errors() as error:
            return refusals.refusal_of(str(error), params, chat=chat)
        adapter = params.get("lora")
        lora = self._adapters[adapter] if isinstance(adapter, str) else None
        more = {} if reading is None else reading.engine_arguments(rendered.template, list(token_ids or ()))
        return Request(prompt, sampling, lora, params, reading, more)


def completion_of(output: Any, request: Request) -> Completion | Refusal:  # noqa: ANN401
    """From vLLM's final RequestOutput."""
    params = request.params
    outputs = sorted(output.outputs, key=lambda one: int(one.index))
    reasons = [str(one.finish_reason) for one in outputs]
    for reason in reasons:
        if reason in {"abort", "error"}:
            failed = "structured_outputs" in params and reason == "error"
            return (
                refusals.bad_schema("the engine could not compile it")
                if failed
                else refusals.engine_failed(f"it ended with finish_reason {reason!r}")
            )
    usage = Usage(
        prompt_tokens=len(output.prompt_token_ids or ()),
        completion_tokens=sum(len(one.token_ids) for one in outputs),
        cached_tokens=output.num_cached_tokens or None,
    )
    if request.chat is None:
        details = _details(output, outputs, reasons, params)
        return Completion([one.text for one in outputs], reasons[0], usage, params, details)
    try:
        parsed = [request.chat.parsed(one, output.prompt_token_ids or ()) for one in outputs]
    except Exception as error:  # noqa: BLE001 - parsers raise anything at what a model may say
        return refusals.engine_failed(f"its answer could not be parsed ({type(error).__name__}: {error})")
    thought = sum(one.reasoning_tokens for one in parsed)
    reasons = [one.finish_reason for one in parsed]
    return Completion(
        [one.text for one in parsed],
        reasons[0],
        replace(usage, reasoning_tokens=thought) if thought else usage,
        params,
        _details(output, outputs, reasons, params),
        [one.reasoning for one in parsed],
        [one.tool_calls for one in parsed],
    )


def _details(output: Any, outputs: Sequence[Any], reasons: list[str], params: JsonObject) -> JsonObject | None:  # noqa: ANN401
    details: JsonObject = {}
    if len(outputs) > 1:
        details["finish_reasons"] = list(reasons)
    if "stop" in params or "stop_token_ids" in params:
        details["stop_reasons"] = [one.stop_reason for one in outputs]
    count = params.get("logprobs")
    if isinstance(count, int):
        details["logprobs"] = [_logprobs(one, count) for one in outputs]
    if "prompt_logprobs" in params and output.prompt_logprobs is not None:
        details["prompt_logprobs"] = [_by_token_id(position) for position in output.prompt_logprobs]
    return details or None


def _logprobs(output: Any, count: int) -> list[JsonValue]:  # noqa: ANN401
    """For each token of the answer: it, its logprob, and the `count` likeliest at its place."""
    positions: list[JsonValue] = []
    for token_id, position in zip(output.token_ids, output.logprobs or (), strict=False):
        likeliest = sorted(position.values(), key=lambda one: -float(one.logprob))[:count]
        positions.append({**_logprob(position[token_id]), "top_logprobs": [_logprob(one) for one in likeliest]})
    return positions


def _logprob(one: Any) -> JsonObject:  # noqa: ANN401
    return {"token": one.decoded_token or "", "logprob": max(float(one.logprob), LEAST_LOGPROB)}


def _by_token_id(position: Any) -> JsonValue:  # noqa: ANN401
    if position is None:
        return None
    return {
        str(token_id): {
            "logprob": max(float(one.logprob), LEAST_LOGPROB),
            "rank": one.rank,
            "decoded_token": one.decoded_token,
        }
        for token_id, one in position.items()
    }


def _sampler_arguments(params: JsonObject) -> dict[str, Any]:
    """Those of `params` that the sampler knows, in its types."""
    arguments: dict[str, Any] = {
        name: value for name, value in params.items() if name not in PROMPT_SHAPING | TOOL_PARAMETERS and name != "lora"
    }
    bias = arguments.get("logit_bias")
    if isinstance(bias, dict):
        arguments["logit_bias"] = {int(token_id): value for token_id, value in bias.items()}
    return arguments
