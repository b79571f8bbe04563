"""The body of an HTTP response -> a completion, whatever a server makes of OpenAI's form. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from gpu_worker.engines.engine import Completion
from gpu_worker.engines.openai.request_body import Request, Served
from wire.codec import MAX_INTEGER, sendable
from wire.messages import JsonObject, Usage

Json = Any
"""Whatever JSON a server sends."""

_KNOWN_IN_MESSAGE = frozenset({"role", "content", "reasoning", "reasoning_content"})


def completion_of(response: Json, request: Request, served: Served) -> Completion | None:
    """From the JSON of a successful response; None if it does not have the form of one.

    It is None, too, if a choice has nothing in which an answer could be.
    """
    response = sendable(response)
    choices = response.get("choices") if isinstance(response, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        return None
    if all(isinstance(choice.get("index"), int) for choice in choices):
        choices = sorted(choices, key=lambda choice: choice["index"])
    messages = [_message_of(choice, chat=request.chat) for choice in choices]
    read = [_read_content(message["content"]) for message in messages if message is not None]
    texts = [text for text, _ in read if text is not None]
    if len(texts) < len(choices):
        return None
    details = _extras(messages)
    reasons: list[JsonValue] = [str(choice.get("finish_reason") or "unknown") for choice in choices]
    details.update(_asked_for(response, choices, reasons, request))
    counts = _object(response.get("usage"))
    cached = _object(counts.get("prompt_tokens_details")).get("cached_tokens")
    reasoning = _object(counts.get("completion_tokens_details")).get("reasoning_tokens")
    usage = Usage(
        prompt_tokens=_count(counts.get("prompt_tokens")) or 0,
        completion_tokens=_count(counts.get("completion_tokens")) or 0,
        cached_tokens=_count(cached),
        reasoning_tokens=_count(reasoning),
    )
    return Completion(
        texts,
        str(reasons[0]),
        usage,
        _params_used(request.params, usage, served),
        details or None,
        [_reasoning(message, part) for message, (_, part) in zip(messages, read, strict=True)],
        [_tool_calls(message) for message in messages],
    )


def _message_of(choice: Mapping[str, Json], *, chat: bool) -> JsonObject | None:
    """With `content`; None if there is no message. A text of the completions endpoint is the content of one."""
    if not chat:
        return {"content": choice["text"]} if isinstance(choice.get("text"), str) else None
    message = choice.get("message")
    return {"content": None, **message} if isinstance(message, dict) else None


def _read_content(content: Json) -> tuple[str | None, str]:
    """(the text, the reasoning) of a message's content: a text, nothing, or parts.

    The text is None where it is something else.
    """
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        return None, ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        (thoughts if kind in {"thinking", "reasoning"} else texts).append(_words(part))
    return "".join(texts), "".join(thoughts)


def _words(part: Json) -> str:
    """Of a part: `{"type": "text", "text": ...}`, `{"type": "thinking", "thinking": [parts]}` and the like."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_words, part))
    if not isinstance(part, dict):
        return ""
    return _words(next((part[name] for name in ("text", "thinking", "reasoning") if part.get(name)), ""))


def _extras(messages: list[JsonObject | None]) -> JsonObject:
    """What else a message has (refusal, annotations, ...) under its own name: a list with one entry for each choice."""
    names = dict.fromkeys(
        name
        for message in messages
        if message
        for name, value in message.items()
        if value and not (name in _KNOWN_IN_MESSAGE or (name == "tool_calls" and _tool_calls(message)))
    )
    return {name: [(message or {}).get(name) for message in messages] for name in names}


def _reasoning(message: JsonObject | None, part: str) -> str | None:
    """`part`: what stood in parts of the content."""
    found = (message or {}).get("reasoning") or (message or {}).get("reasoning_content") or part
    return found if isinstance(found, str) and found else json.dumps(found) if found else None


def _tool_calls(message: JsonObject | None) -> list[JsonObject] | None:
    found = (message or {}).get("tool_calls")
    return [call for call in found if isinstance(call, dict)] or None if isinstance(found, list) else None


def _params_used(params: JsonObject, usage: Usage, served: Served) -> JsonObject:
    """With what became of `max_tokens`: vLLM's server lowers it to what fits behind the prompt, and does not say so."""
    asked = params.get("max_tokens")
    if served.max_model_len is None or not served.is_vllm or not isinstance(asked, int):
        return params
    room = max(1, served.max_model_len - usage.prompt_tokens)
    return params if asked <= room else {**params, "max_tokens": room}


def _count(value: Json) -> int | None:
    """A whole number of at least 0, however it is written; None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and 0 <= number <= MAX_INTEGER else None


def _asked_for(
    response: Mapping[str, Json], choices: list[Json], reasons: list[JsonValue], request: Request
) -> JsonObject:
    details: JsonObject = {}
    params = request.params
    if len(choices) > 1:
        details["finish_reasons"] = reasons
    if "stop" in params or "stop_token_ids" in params:
        details["stop_reasons"] = [choice.get("stop_reason") for choice in choices]
    count = params.get("logprobs")
    if isinstance(count, int):
        details["logprobs"] = [
            _logprobs(_object(choice.get("logprobs")), count, chat=request.chat) for choice in choices
        ]
    if "prompt_logprobs" in params:
        details["prompt_logprobs"] = (
            response.get("prompt_logprobs") if request.chat else choices[0].get("prompt_logprobs")
        )
    return details


def _logprobs(given: Mapping[str, Json], count: int, *, chat: bool) -> list[JsonValue]:
    """Both of OpenAI's forms as one: for each token it, its logprob, and the `count` likeliest at its place."""
    if chat:
        return [
            _position(
                one.get("token"),
                one.get("logprob"),
                [(top.get("token"), top.get("logprob")) for top in _objects(one.get("top_logprobs"))],
                count,
            )
            for one in _objects(given.get("content"))
        ]
    tokens, logprobs = _list(given.get("tokens")), _list(given.get("token_logprobs"))
    tops = _list(given.get("top_logprobs")) or [{}] * len(tokens)
    return [
        _position(token, logprob, list(_object(top).items()), count)
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
    ]


def _position(token: Json, logprob: Json, top: list[tuple[Json, Json]], count: int) -> JsonValue:
    likeliest = sorted(top, key=lambda pair: -pair[1] if isinstance(pair[1], int | float) else float("inf"))[:count]
    return {
        "token": token,
        "logprob": logprob,
        "top_logprobs": [{"token": name, "logprob": value} for name, value in likeliest],
    }


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
