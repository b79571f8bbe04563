"""Answers of the fleet -> what OpenAI's clients expect for them. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson

from batchfleet.client.answers import Answer, Failure, Usage
from batchfleet.gateway.echo import with_prompt
from batchfleet.gateway.errors import ApiError, too_many
from batchfleet.gateway.online_request import OnlineRequest, refused
from producer.answers.openai_batch import batch_line
from producer.answers.reader import Answered

_NEVER_AGAIN = {"x-should-retry": "false"}
"""OpenAI's SDK tries again after any status from 500 on, unless it is told not to: a question that kills engines
would kill three times as many."""
STATUS = {
    "prompt_too_long": (400, "context_length_exceeded"),
    "unknown_adapter": (404, "model_not_found"),
    "cancelled": (409, "cancelled"),
    "expired": (504, "timeout"),
    "timed_out": (504, "timeout"),
    "server_error": (502, "server_error"),
    "image_unreachable": (502, "image_unreachable"),
    "engine_error": (500, "engine_error"),
    "internal_error": (500, "internal_error"),
    "engine_killed": (500, "engine_killed"),
    "unreadable": (503, "unreadable"),
}
"""Kind of failure -> status and code; all others are a mistake of the request."""
BUSY_S = 5.0


def failure_error(failure: Failure) -> ApiError:
    """What a client is told of a question that has no answer."""
    if failure.kind == "server_busy":
        return too_many(failure.message, BUSY_S)
    if failure.kind not in STATUS:
        error = refused(failure.message.removeprefix("line 1: "))
        error.code = failure.kind if error.param is None else error.code
        return error
    status, code = STATUS[failure.kind]
    return ApiError(status, failure.message, code=code, headers={} if failure.retryable else _NEVER_AGAIN)


def as_answer(result: Answer | Failure) -> Answer:
    """An answer, be it empty: a model may say nothing, and whoever asks online expects to be told so.

    Raises:
        ApiError: It is a failure of any other kind.
    """
    if isinstance(result, Answer):
        return result
    if result.kind not in {"empty_answer", "only_reasoning"}:
        raise failure_error(result)
    seen = result.evidence or {}
    # The record of a failure does not say how long the prompt was.
    usage = Usage(0, int(seen.get("completion_tokens", 0)))
    return Answer(
        id=result.id,
        run=result.run,
        text="",
        reasoning=seen.get("reasoning"),
        finish_reason=str(seen.get("finish_reason", "stop")),
        usage=usage,
        model="",
        params={},
    )


def completion(request_id: str, created: int, request: OnlineRequest, answers: Sequence[Answer]) -> dict[str, Any]:
    """One response for the answers of all questions of a request, which are in the order of these.

    Args:
        request_id: Makes its id.
        created: Unix time in seconds.

    Raises:
        ApiError: The answers lack what was asked for.
    """
    bodies = [
        batch_line(Answered(b"", answer.as_dict(), index, asked), created)["response"]["body"]
        for index, (asked, answer) in enumerate(zip(request.questions, answers, strict=True))
    ]
    body: dict[str, Any] = bodies[0]
    if "choices" not in body:
        return body
    if request.echo:
        for one, asked, answer in zip(bodies, request.questions, answers, strict=True):
            positions = (answer.details or {}).get("prompt_logprobs")
            one["choices"] = [
                with_prompt(choice, asked.prompt or "", positions, alone=request.echo_alone)
                for choice in one["choices"]
            ]
    prefix = body["id"].partition("-")[0]
    choices = [choice for one in bodies for choice in one["choices"]]
    for index, choice in enumerate(choices):
        choice["index"] = index
    for later in bodies[1:]:
        _add(body["usage"], later["usage"])
    tag = request_id.removeprefix("req_")
    return {
        **body,
        "id": f"{prefix}-{tag}",
        "model": request.model,
        "choices": choices,
        "system_fingerprint": fingerprint(),
    }


def events(body: dict[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """The same as server-sent events: each choice whole, as answers of a queue come, then the usage if it is wanted."""
    usage, choices = body.pop("usage"), body.pop("choices")
    if body["object"] == "chat.completion":
        body["object"] = "chat.completion.chunk"
        choices = [_with_delta(choice) for choice in choices]
    for choice in choices:
        yield _event({**body, "choices": [choice], **({"usage": None} if include_usage else {})})
    if include_usage:
        yield _event({**body, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _with_delta(choice: dict[str, Any]) -> dict[str, Any]:
    delta = dict(choice.pop("message"))
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return {"index": choice["index"], "delta": delta, **choice}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


@functools.cache
def fingerprint() -> str:
    """Of what answers behind this API, as far as it is one thing: the version of the fleet's software."""
    try:
        return f"batchfleet-{version('batchfleet')}"
    except PackageNotFoundError:
        return "batchfleet"
