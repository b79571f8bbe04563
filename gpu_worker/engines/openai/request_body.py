"""A question -> the body of an HTTP request. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.refusals import EMPTY_PROMPT, bad_messages, messages_problem
from gpu_worker.engines.sampling_params import DEFAULTS, NEUTRAL, effective_params, untaken
from wire.messages import JsonObject, Question, Task
from wire.parameters import names_of

NOT_OF_VLLM = names_of("other servers")
NOTHING_TO_A_MODEL = names_of("bookkeeping")
"""Sent, and not recorded: no answer depends on it."""

Form = Literal["chat", "prompt", "vectors"]

_SPELLED_ANEW = frozenset({"lora", "logprobs", "structured_outputs", "extra_body"})


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of a server.

    Attributes:
        model: The model asked for.
        is_vllm: Whether it is vLLM's server, which takes more parameters than OpenAI's, and applies the model's
            generation_config unless told not to.
        max_model_len: Longest prompt and answer together, in tokens; None if the server does not say.
        ids: Everything that it serves; with vLLM's server, adapters too.
    """

    model: str
    is_vllm: bool = False
    max_model_len: int | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: `path` below the base URL, `body`, and the canonical parameters for the record.

    `inputs`: how many vectors are wanted, or scores.
    """

    path: str
    body: JsonObject
    params: JsonObject
    chat: bool
    task: Task = "generate"
    inputs: int = 0

    @property
    def form(self) -> Form:
        """Which a server may know or not."""
        return "vectors" if self.task != "generate" else "chat" if self.chat else "prompt"

    def capped(self, max_tokens: int) -> Request:
        """The same, for an answer of at most `max_tokens`."""
        name = "max_completion_tokens" if "max_completion_tokens" in self.body else "max_tokens"
        return replace(self, body={**self.body, name: max_tokens}, params={**self.params, "max_tokens": max_tokens})


def complete_defaults(configured: JsonObject, served: Served) -> JsonObject:
    """What holds where a question says nothing.

    The configuration, and neutral values for what a generation_config could change behind our back. But a configuration
    that leaves the temperature to the server leaves it the rest too.
    """
    is_left_to_server = configured.get("temperature", DEFAULTS["temperature"]) is None
    return {**DEFAULTS, **(NEUTRAL if served.is_vllm and not is_left_to_server else {}), **configured}


def request_for(question: Question, defaults: JsonObject, served: Served) -> Request | Refusal:
    """The request; or why no server would answer it."""
    chat = question.messages is not None
    params = effective_params(question.params, defaults, chat=chat)
    if isinstance(params, Refusal):
        return params
    for name in sorted(NOT_OF_VLLM & params.keys()) if served.is_vllm else ():
        return untaken(name, "vLLM")
    params = _pinned(_within(params, served))
    body = _body(params, question, served)
    params = {name: value for name, value in params.items() if name not in NOTHING_TO_A_MODEL}
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


def _body(params: JsonObject, question: Question, served: Served) -> JsonObject:
    """All but the words of the question."""
    chat = question.messages is not None
    body: JsonObject = {name: value for name, value in params.items() if name not in _SPELLED_ANEW}
    body["model"] = params.get("lora", served.model)
    if chat and question.params.get("max_completion_tokens") is not None:
        # Newer models take it under this name alone; the completions endpoint knows only the other one.
        body["max_completion_tokens"] = body.pop("max_tokens")
    body.update(_logprobs_asked(params, chat=chat))
    body.update(_structure_asked(params, question.params.get("response_format"), served))
    extra = params.get("extra_body")
    return {**body, **extra} if isinstance(extra, dict) else body


def _pinned(params: JsonObject) -> JsonObject:
    """With a neutral `top_p` where it matters, against a server's own.

    Where it does not, some servers refuse to be told.
    """
    return {"top_p": NEUTRAL["top_p"], **params} if params.get("temperature") else params


def _within(params: JsonObject, served: Served) -> JsonObject:
    """With `max_tokens` below the model's limit.

    VLLM's server refuses more, though it lowers what does not fit behind the prompt. Without any, its endpoints differ
    in what they take it to be; here it is what fits, as in process.
    """
    asked = params.get("max_tokens")
    if served.max_model_len is None or not (isinstance(asked, int) or served.is_vllm):
        return params
    most = max(1, served.max_model_len - 1)
    return {**params, "max_tokens": min(asked, most) if isinstance(asked, int) else most}


def _logprobs_asked(params: JsonObject, *, chat: bool) -> JsonObject:
    count = params.get("logprobs")
    if count is None:
        return {}
    return {"logprobs": True, "top_logprobs": count} if chat else {"logprobs": count}


def _structure_asked(params: JsonObject, response_format: JsonValue, served: Served) -> JsonObject:
    """In the words of the question if it was asked in OpenAI's.

    Else in vLLM's, or in OpenAI's where these say the same.
    """
    if isinstance(response_format, dict):
        named = response_format.get("json_schema")
        # OpenAI asks for a name.
        return {
            "response_format": {**response_format, "json_schema": {"name": "answer", **named}}
            if isinstance(named, dict)
            else response_format
        }
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
