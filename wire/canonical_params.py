"""The parameters of a question, checked, in one spelling.

Producers check with it before anything is sent, workers read with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from wire.errors import MAX_SHOWN_CHARS, ParameterError, nearest, shown
from wire.parameters import CHAT_ONLY, NAMES, PARAMETERS, SPELLINGS, Parameter
from wire.structured_output import structure_of

if TYPE_CHECKING:
    from pydantic import JsonValue

    from wire.messages import JsonObject

_READ_TOGETHER = frozenset({*SPELLINGS, "logprobs", "structured_outputs"})
_NEAR = 0.8
_BESIDE = frozenset({"model", "messages", "prompt", "question", "metadata", "deadline_s", "id"})


def canonical(asked: JsonObject, *, chat: bool | None = None) -> JsonObject:
    """`asked` in canonical names, checked.

    Null stays null: it means that nothing is sent, not even the configured value.

    Args:
        chat: Whether it is of chat messages; None if that is not known.

    Raises:
        ParameterError: It cannot be asked.
    """
    params: JsonObject = {}
    given: JsonObject = {}
    for name, value in asked.items():
        parameter = PARAMETERS.get(name)
        if parameter is None and name not in SPELLINGS:
            _refuse(_unknown(name))
        if value is None or (parameter is not None and _asks_nothing(value, parameter)):
            if value is None and parameter is not None:
                params[name] = None
            continue
        given[name] = value
        if name not in _READ_TOGETHER:
            params[name] = _checked(name, value)
    if not _READ_TOGETHER.isdisjoint(asked):
        params.update(_read_together(given))
    _check_tools(given, params)
    if chat is False and not CHAT_ONLY.isdisjoint(params):
        _refuse(f"parameter {min(CHAT_ONLY & params.keys())!r} is for chat messages; this question is a prompt")
    return params


def _refuse(message: str) -> NoReturn:
    raise ParameterError(message, "bad_parameter")


def _read_together(given: JsonObject) -> JsonObject:
    """What has several spellings, or is spelled in several parameters."""
    params: JsonObject = {}
    if "max_completion_tokens" in given:
        params["max_tokens"] = _checked("max_tokens", given["max_completion_tokens"], spelled="max_completion_tokens")
    if given.get("stream", False) is not False:
        _refuse("parameter 'stream' must be false: answers arrive whole")
    if "stream_options" in given:
        _refuse("parameter 'stream_options' must be null: answers arrive whole")
    return {**params, **_logprobs(given), **structure_of(given)}


def _unknown(name: str) -> str:
    if name in _BESIDE:
        return f"unknown parameter {name!r}; it stands beside `params`, not in it"
    near = nearest(name, NAMES, least=_NEAR) or "; what only a server knows goes into `extra_body`"
    return f"unknown parameter {name[:MAX_SHOWN_CHARS]!r}{near}"


def _asks_nothing(value: JsonValue, parameter: Parameter) -> bool:
    # A flag is no number, though Python says that false equals 0.
    return any(
        value == nothing and isinstance(value, bool) == isinstance(nothing, bool) for nothing in parameter.absent
    )


def _checked(name: str, value: JsonValue, *, spelled: str | None = None) -> JsonValue:
    parameter = PARAMETERS[name]
    read = parameter.read(value)
    if read is None:
        _refuse(f"parameter {spelled or name!r} must be {parameter.takes}, not {shown(value)}")
    return read


def _check_tools(given: Mapping[str, JsonValue], params: JsonObject) -> None:
    """Without tools, `tool_choice` and `parallel_tool_calls` have no meaning."""
    if "tools" in given:
        return
    if given.get("tool_choice", "none") != "none":
        _refuse("parameter 'tool_choice' needs 'tools'")
    for name in ("tool_choice", "parallel_tool_calls"):
        params.pop(name, None)


def _logprobs(given: Mapping[str, JsonValue]) -> JsonObject:
    """OpenAI's chat form and its completion form of `logprobs`, as one count.

    The chat form has `logprobs` true and a count in `top_logprobs`, the completion form a count in `logprobs`.
    """
    asked, count = given.get("logprobs"), given.get("top_logprobs")
    if count and asked is not True:
        _refuse("parameter 'top_logprobs' needs 'logprobs' to be true")
    if asked is None:
        return {}
    if asked is True:
        return {"logprobs": _checked("logprobs", 0 if count is None else count, spelled="top_logprobs")}
    return {"logprobs": _checked("logprobs", asked)}
