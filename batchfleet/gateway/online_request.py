"""The body of an online request -> the questions that it asks. Pure.

They are read by the parser that reads OpenAI's batch files, so that online and in a batch the same is taken, and the
same refused by name.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

import orjson

from batchfleet.client.questions import as_asked
from batchfleet.gateway.echo import asked_for_echo
from batchfleet.gateway.errors import ApiError
from producer.questions.question_parser import Invalid, ParsedQuestion

CONTENT = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/embeddings": "input"}
"""Endpoint -> the field that is asked."""
MOST_PROMPTS = 2048
_STREAM_OPTIONS = {"include_usage", "include_obfuscation"}
_PARAMETER = re.compile(r"(unknown )?(?:parameter )?'([a-z_]+)'")


@dataclass(frozen=True, slots=True)
class OnlineRequest:
    """What is asked, and how the answer is wanted.

    Attributes:
        questions: One; or one for each prompt, in their order, where several are asked of `/v1/completions`.
        stream: Whether as server-sent events.
        include_usage: Whether these end with one that counts tokens.
        echo: Whether each prompt stands before its answer.
        echo_alone: Whether it stands there without the answer.
    """

    model: str
    questions: tuple[ParsedQuestion, ...]
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    echo_alone: bool = False


def parse_request(raw: bytes, endpoint: str, *, deadline_s: float, max_question_bytes: int) -> OnlineRequest:
    """Read a request.

    Args:
        deadline_s: Seconds after which the fleet need not answer any more.
        max_question_bytes: A longer question is not carried.

    Raises:
        ApiError: It cannot be asked; it names the parameter that is wrong.
    """
    body = _json_object(raw)
    field = CONTENT[endpoint]
    for name in ("model", field):
        if body.get(name) is None:
            msg = f"Missing required parameter: '{name}'."
            raise ApiError(400, msg, param=name, code="missing_required_parameter")
    if not isinstance(body["model"], str):
        raise ApiError(400, "'model' must be a text.", param="model", code="invalid_type")
    stream, include_usage = _stream(body)
    rest = {name: value for name, value in body.items() if name not in {"stream", "stream_options"}}
    echo = endpoint == "/v1/completions" and rest.get("echo") is True
    rest, echo_alone = asked_for_echo(rest) if echo else (rest, False)
    bodies = [{**rest, field: prompt} for prompt in _prompts(body[field])] if field == "prompt" else [rest]
    questions = []
    for one in bodies:
        line = {"custom_id": secrets.token_hex(12), "url": endpoint, "body": one, "deadline_s": deadline_s}
        asked = as_asked(line, 0, {}, max_question_bytes)
        if isinstance(asked, Invalid):
            raise refused(asked.reason)
        questions.append(asked)
    return OnlineRequest(body["model"], tuple(questions), stream, include_usage, echo, echo_alone)


def refused(reason: str) -> ApiError:
    """For a question that cannot be asked, in the words of the parser."""
    match = _PARAMETER.search(reason)
    if match is None:
        return ApiError(400, reason, code="invalid_value")
    return ApiError(400, reason, param=match[2], code="unknown_parameter" if match[1] else "invalid_value")


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = f"We could not parse the JSON body of your request: {error}."
        raise ApiError(400, msg, code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body of the request must be a JSON object.", code="invalid_json")
    return body


def _stream(body: dict[str, Any]) -> tuple[bool, bool]:
    """(stream, include_usage)."""
    stream, options = body.get("stream") or False, body.get("stream_options") or {}
    if not isinstance(stream, bool):
        raise ApiError(400, "'stream' must be true or false.", param="stream", code="invalid_type")
    if not isinstance(options, dict) or (unknown := options.keys() - _STREAM_OPTIONS):
        named = f"'{min(unknown)}' is none of them" if isinstance(options, dict) else "it must be an object"
        msg = f"'stream_options' takes include_usage and include_obfuscation; {named}."
        raise ApiError(400, msg, param="stream_options", code="invalid_value")
    if options and not stream:
        msg = "'stream_options' needs 'stream' to be true."
        raise ApiError(400, msg, param="stream_options", code="invalid_value")
    return stream, bool(options.get("include_usage"))


def _prompts(prompt: Any) -> list[Any]:  # noqa: ANN401 (whatever JSON can say)
    if not isinstance(prompt, list):
        return [prompt]
    if not 1 <= len(prompt) <= MOST_PROMPTS:
        msg = f"'prompt' has {len(prompt)} prompts; 1 to {MOST_PROMPTS} are taken."
        raise ApiError(400, msg, param="prompt", code="invalid_value")
    if not all(isinstance(one, str) for one in prompt):
        msg = "'prompt' must be a text or a list of texts; token ids are not taken."
        raise ApiError(400, msg, param="prompt", code="invalid_type")
    return prompt
