"""A question -> the body of an HTTP request; the body of the response -> a completion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

from gpu_worker.engines.engine import Completion, Refusal
from gpu_worker.engines.refusals import EMPTY_PROMPT, bad_messages, messages_problem
from gpu_worker.engines.sampling_params import DEFAULTS, NEUTRAL, effective_params
from wire.messages import JsonObject, Question, Usage


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of a server.

    Attributes:
        model: The model asked for.
        is_vllm: Whether it is vLLM's server, which takes more parameters than OpenAI's, and applies the model's generation_config unless told not to.
        max_model_len: Longest prompt and answer together, in tokens; None if the server does not say.
        ids: Everything that it serves; with vLLM's server, adapters too.
    """

    model: str
    is_vllm: bool = False
    max_model_len: int | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: `path` below the base URL, `body`, and the canonical parameters for the record."""

    path: str
    body: JsonObject
    params: JsonObject
    chat: bool

    def capped(self, max_tokens: int) -> Request:
        """The same, for an answer of at most `max_tokens`."""
        return replace(
            self, body={**self.body, "max_tokens": max_tokens}, params={**self.params, "max_tokens": max_tokens}
        )


def complete_defaults(configured: JsonObject, served: Served) -> JsonObject:
    """What holds where a question says nothing: the configuration, and neutral values for what a generation_config could change behind our back."""
    neutral = NEUTRAL if served.is_vllm else {"top_p": NEUTRAL["top_p"]}
    return {**DEFAULTS, **neutral, **configured}


def request_for(question: Question, defaults: JsonObject, served: Served) -> Request | Refusal:
    """The request; or why no server would answer it."""
    chat = question.messages is not None
    params = effective_params(question.params, defaults, chat=chat)
    if isinstance(params, Refusal):
        return params
    params = _within(params, served)
    body: JsonObject = {
        name: value for name, value in params.items() if name not in {"lora", "logprobs", "structured_outputs"}
    }
    body["model"] = params.get("lora", served.model)
    body.update(_logprobs_asked(params, chat=chat))
    body.update(_structure_asked(params, served))
    if question.messages is not None:
        problem = messages_problem(question.messages)
        if problem is not None:
            return bad_messages(problem)
        if params.get("continue_final_message") is True:
            body.setdefault("add_generation_prompt", False)
        return Request("/chat/completions", {**body, "messages": list(question.messages)}, params, chat)
    if not question.prompt:
        return EMPTY_PROMPT
    return Request("/completions", {**body, "prompt": question.prompt}, params, chat)


def completion_of(response: Any, request: Request, served: Served) -> Completion | None:  # noqa: ANN401 - whatever JSON a server sends
    """From the JSON of a successful response; None if it does not have the form of one."""
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        return None
    choices = sorted(choices, key=lambda choice: choice.get("index") or 0)
    texts = [_text(choice, chat=request.chat) for choice in choices]
    usage = _usage(response.get("usage"))
    reasons: list[JsonValue] = [choice.get("finish_reason") or "unknown" for choice in choices]
    return Completion(
        [text or "" for text in texts],
        str(reasons[0]),
        usage,
        _params_used(request.params, usage, served),
        _details(response, choices, reasons, request),
    )


def _within(params: JsonObject, served: Served) -> JsonObject:
    """With `max_tokens` below the model's limit: vLLM's server refuses more, though it lowers what does not fit behind the prompt."""
    asked = params.get("max_tokens")
    if served.max_model_len is None or not isinstance(asked, int):
        return params
    return {**params, "max_tokens": min(asked, max(1, served.max_model_len - 1))}


def _logprobs_asked(params: JsonObject, *, chat: bool) -> JsonObject:
    count = params.get("logprobs")
    if count is None:
        return {}
    return {"logprobs": True, "top_logprobs": count} if chat else {"logprobs": count}


def _structure_asked(params: JsonObject, served: Served) -> JsonObject:
    structure = params.get("structured_outputs")
    if not isinstance(structure, dict):
        return {}
    if served.is_vllm or not structure.keys() & {"json", "json_object"}:
        return {"structured_outputs": structure}
    if "json_object" in structure:
        return {"response_format": {"type": "json_object"}}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": structure["json"], "strict": True},
        }
    }


def _params_used(params: JsonObject, usage: Usage, served: Served) -> JsonObject:
    """With what became of `max_tokens`: vLLM's server lowers it to what fits behind the prompt, and does not say so."""
    asked = params.get("max_tokens")
    if served.max_model_len is None or not served.is_vllm or not isinstance(asked, int):
        return params
    room = max(1, served.max_model_len - usage.prompt_tokens)
    return params if asked <= room else {**params, "max_tokens": room}


def _text(choice: Mapping[str, Any], *, chat: bool) -> str | None:
    source = (choice.get("message") or {}).get("content") if chat else choice.get("text")
    return source if isinstance(source, str) else None


def _usage(usage: Any) -> Usage:  # noqa: ANN401
    counts = usage if isinstance(usage, dict) else {}
    return Usage(
        prompt_tokens=int(counts.get("prompt_tokens") or 0), completion_tokens=int(counts.get("completion_tokens") or 0)
    )


def _details(
    response: Mapping[str, Any], choices: list[Any], reasons: list[JsonValue], request: Request
) -> JsonObject | None:
    details: JsonObject = {}
    params = request.params
    if len(choices) > 1:
        details["finish_reasons"] = reasons
    if "stop" in params or "stop_token_ids" in params:
        details["stop_reasons"] = [choice.get("stop_reason") for choice in choices]
    count = params.get("logprobs")
    if isinstance(count, int):
        details["logprobs"] = [_logprobs(choice.get("logprobs") or {}, count, chat=request.chat) for choice in choices]
    if "prompt_logprobs" in params:
        details["prompt_logprobs"] = (
            response.get("prompt_logprobs") if request.chat else choices[0].get("prompt_logprobs")
        )
    reasoning = [
        (choice.get("message") or {}).get("reasoning") or (choice.get("message") or {}).get("reasoning_content")
        for choice in choices
    ]
    if any(reasoning):
        details["reasoning"] = reasoning
    return details or None


def _logprobs(given: Mapping[str, Any], count: int, *, chat: bool) -> list[JsonValue]:
    """Both of OpenAI's forms as one: for each token it, its logprob, and the `count` likeliest at its place."""
    if chat:
        return [
            _position(one.get("token"), one.get("logprob"), _pairs(one.get("top_logprobs")), count)
            for one in given.get("content") or ()
        ]
    columns = zip(
        given.get("tokens") or (),
        given.get("token_logprobs") or (),
        given.get("top_logprobs") or [{}] * len(given.get("tokens") or ()),
        strict=False,
    )
    return [_position(token, logprob, list((top or {}).items()), count) for token, logprob, top in columns]


def _pairs(top: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    return [(one.get("token"), one.get("logprob")) for one in top or ()]


def _position(token: Any, logprob: Any, top: list[tuple[Any, Any]], count: int) -> JsonValue:  # noqa: ANN401
    likeliest = sorted(top, key=lambda pair: -pair[1] if isinstance(pair[1], int | float) else float("inf"))[:count]
    return {
        "token": token,
        "logprob": logprob,
        "top_logprobs": [{"token": name, "logprob": value} for name, value in likeliest],
    }
