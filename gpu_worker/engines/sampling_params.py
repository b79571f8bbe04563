"""What a question may ask of the sampler: OpenAI's names and vLLM's, their ranges, and one spelling for the record. Knows no engine.

Canonical are the names of vLLM's `SamplingParams`, plus `structured_outputs` (one of `json`, `regex`, `choice`, `grammar`, `json_object`),
`logprobs` as a count, `lora` (an adapter's name) and what shapes a chat prompt. Other spellings become these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import JsonValue

from gpu_worker.engines.engine import Refusal
from wire.messages import JsonObject

DEFAULTS: JsonObject = {"temperature": 0.0, "max_tokens": 1024}
"""Used where neither the question nor the configuration says otherwise."""

NEUTRAL: JsonObject = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Everything else that a model's generation_config could change behind our back. Always set, and recorded."""

CHAT_ONLY = frozenset({"add_generation_prompt", "continue_final_message", "chat_template_kwargs", "reasoning_effort"})

PROMPT_SHAPING = CHAT_ONLY | {"add_special_tokens"}
"""Parameters that shape the prompt before the sampler comes in."""

STRUCTURES = ("json", "regex", "choice", "grammar", "json_object")

_IGNORED = frozenset({"user", "store", "service_tier"})
"""OpenAI's own bookkeeping; means nothing to a model."""

_MAX_SHOWN_CHARS = 80


class _WrongValueError(ValueError):
    """What a value should have been; becomes a refusal."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a parameter takes: words for people, and a reader that gives None for anything else."""

    description: str
    read: Callable[[JsonValue], JsonValue]


def _number(description: str, allowed: Callable[[float], bool]) -> _Kind:
    def read(value: JsonValue) -> JsonValue:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value) if allowed(value) else None

    return _Kind(description, read)


def _integer(description: str, low: int, high: int = 2**63 - 1) -> _Kind:
    def read(value: JsonValue) -> JsonValue:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None

    return _Kind(description, read)


def _read_texts(value: JsonValue) -> JsonValue:
    texts: list[JsonValue] = value if isinstance(value, list) else [value]
    return texts if all(isinstance(text, str) and text for text in texts) else None


def _read_token_ids(value: JsonValue) -> JsonValue:
    fits = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )
    return value if fits else None


def _read_bias(value: JsonValue) -> JsonValue:
    if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
        return None
    biases = {key: _PENALTY_FREE.read(bias) for key, bias in value.items()}
    return None if None in biases.values() else biases


_PENALTY_FREE = _number("a number", lambda _: True)
_PENALTY = _number("a number from -2 to 2", lambda value: -2 <= value <= 2)  # noqa: PLR2004 - OpenAI's range, named in the description
_FLAG = _Kind("true or false", lambda value: value if isinstance(value, bool) else None)
_TEXT = _Kind("a text", lambda value: value if isinstance(value, str) and value else None)
_TEXTS = _Kind("a text that is not empty, or a list of such", _read_texts)
_TOKEN_IDS = _Kind("a list of token ids", _read_token_ids)
_OBJECT = _Kind("an object", lambda value: value if isinstance(value, dict) else None)

_KINDS: dict[str, _Kind] = {
    "temperature": _number("a number of at least 0", lambda value: value >= 0),
    "top_p": _number("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "top_k": _integer("an integer of at least 1, or 0 or -1 for no limit", -1),
    "min_p": _number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": _number("a number above 0", lambda value: value > 0),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "seed": _integer("an integer of at most 64 bits", -(2**63)),
    "n": _integer("an integer of at least 1", 1),
    "max_tokens": _integer("an integer of at least 1", 1),
    "min_tokens": _integer("an integer of at least 0", 0),
    "stop": _TEXTS,
    "stop_token_ids": _TOKEN_IDS,
    "ignore_eos": _FLAG,
    "logprobs": _integer("true, false, or how many alternatives to show, at least 0", 0),
    "prompt_logprobs": _integer("an integer of at least 0", 0),
    "logit_bias": _Kind("an object of token ids with a number each", _read_bias),
    "allowed_token_ids": _TOKEN_IDS,
    "bad_words": _TEXTS,
    "skip_special_tokens": _FLAG,
    "spaces_between_special_tokens": _FLAG,
    "include_stop_str_in_output": _FLAG,
    "thinking_token_budget": _integer("an integer of at least 0, or -1 for no limit", -1),
    "structured_outputs": _OBJECT,
    "lora": _TEXT,
    "add_special_tokens": _FLAG,
    "add_generation_prompt": _FLAG,
    "continue_final_message": _FLAG,
    "chat_template_kwargs": _OBJECT,
    "reasoning_effort": _TEXT,
}

_STRUCTURE_SPELLINGS = {f"guided_{structure}": structure for structure in STRUCTURES}
_OTHER_SPELLINGS = ("max_completion_tokens", "top_logprobs", "response_format", "stream", *_STRUCTURE_SPELLINGS)

NAMES: frozenset[str] = frozenset({*_KINDS, *_OTHER_SPELLINGS, *_IGNORED})
"""Every name that a question may use."""


def effective_params(asked: JsonObject, defaults: JsonObject, *, chat: bool) -> JsonObject | Refusal:
    """The canonical parameters of one question, `defaults` (canonical already) filled in; or why there are none (`bad_parameter`, `bad_schema`)."""
    params = canonical(asked)
    if isinstance(params, Refusal):
        return params
    stray = sorted(CHAT_ONLY & params.keys()) if not chat else []
    if stray:
        return Refusal("bad_parameter", f"parameter {stray[0]!r} is for chat messages; this question is a prompt")
    return {**defaults, **params}


def canonical(asked: JsonObject) -> JsonObject | Refusal:
    """`asked` in canonical names, checked; null means not asked for. Refusal kinds: `bad_parameter`, `bad_schema`."""
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        return Refusal("bad_parameter", f"unknown parameter {unknown[0]!r}{nearest(unknown[0], NAMES)}")
    given = {name: value for name, value in asked.items() if value is not None and name not in _IGNORED}
    try:
        params = {
            name: _checked(name, value)
            for name, value in given.items()
            if name in _KINDS and name not in {"logprobs", "structured_outputs"}
        }
        if "max_completion_tokens" in given:
            params["max_tokens"] = _checked(
                "max_tokens", given["max_completion_tokens"], spelled="max_completion_tokens"
            )
        _check_stream(given)
        params.update(_logprobs(given))
    except _WrongValueError as error:
        return Refusal("bad_parameter", str(error))
    try:
        params.update(_structure(given))
    except _WrongValueError as error:
        return Refusal("bad_schema", str(error))
    return params


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing if no known name is near."""
    matches = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _checked(name: str, value: JsonValue, *, spelled: str | None = None) -> JsonValue:
    kind = _KINDS[name]
    read = kind.read(value)
    if read is None:
        msg = f"parameter {spelled or name!r} must be {kind.description}, not {_shown(value)}"
        raise _WrongValueError(msg)
    return read


def _check_stream(given: Mapping[str, JsonValue]) -> None:
    if given.get("stream", False) is not False:
        msg = "parameter 'stream' must be false: answers arrive whole"
        raise _WrongValueError(msg)


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."


def _logprobs(given: Mapping[str, JsonValue]) -> JsonObject:
    """OpenAI's chat form (`logprobs` true, `top_logprobs` a count) and its completion form (`logprobs` a count) as one count."""
    asked, count = given.get("logprobs"), given.get("top_logprobs")
    if count is not None and asked is not True:
        msg = "parameter 'top_logprobs' needs 'logprobs' to be true"
        raise _WrongValueError(msg)
    if asked is None or asked is False:
        return {}
    if asked is True:
        return {"logprobs": _checked("logprobs", 0 if count is None else count, spelled="top_logprobs")}
    return {"logprobs": _checked("logprobs", asked)}


def _structure(given: Mapping[str, JsonValue]) -> JsonObject:
    """Structured output, in any of its spellings, as `structured_outputs` with exactly one constraint."""
    found: JsonObject = {}
    if "structured_outputs" in given:
        found.update(_constraints(_checked("structured_outputs", given["structured_outputs"])))
    if "response_format" in given:
        found.update(_of_response_format(given["response_format"]))
    found.update({structure: given[name] for name, structure in _STRUCTURE_SPELLINGS.items() if name in given})
    if len(found) > 1:
        msg = f"structured output takes one constraint, not {len(found)}: {', '.join(sorted(found))}"
        raise _WrongValueError(msg)
    return {"structured_outputs": {name: _constraint(name, value) for name, value in found.items()}} if found else {}


def _constraints(value: JsonValue) -> JsonObject:
    constraints: JsonObject = (
        {name: constraint for name, constraint in value.items() if constraint is not None}
        if isinstance(value, dict)
        else {}
    )
    for name in constraints:
        if name not in STRUCTURES:
            msg = f"'structured_outputs' has no {name!r}{nearest(name, STRUCTURES)}; it takes one of {', '.join(STRUCTURES)}"
            raise _WrongValueError(msg)
    if not constraints:
        msg = f"'structured_outputs' takes one of {', '.join(STRUCTURES)}"
        raise _WrongValueError(msg)
    return constraints


def _of_response_format(value: JsonValue) -> JsonObject:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_object": True}
    if kind == "json_schema" and isinstance(value, dict):
        named = value.get("json_schema")
        if isinstance(named, dict) and "schema" in named:
            return {"json": named["schema"]}
        msg = "'response_format' of type json_schema needs json_schema.schema"
        raise _WrongValueError(msg)
    msg = f"'response_format' must have the type text, json_object or json_schema, not {_shown(kind)}"
    raise _WrongValueError(msg)


def _constraint(name: str, value: JsonValue) -> JsonValue:
    if name == "json":
        return _schema(value)
    fits = {
        "choice": isinstance(value, list)
        and bool(value)
        and all(isinstance(choice, str) and choice for choice in value),
        "json_object": value is True,
    }.get(name, isinstance(value, str) and bool(value))
    if not fits:
        wanted = {"choice": "a list of texts", "json_object": "true"}.get(name, "a text")
        msg = f"the {name} constraint must be {wanted}, not {_shown(value)}"
        raise _WrongValueError(msg)
    return value


def _schema(value: JsonValue) -> JsonValue:
    """A JSON schema as an object; vLLM also takes it as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            msg = f"the JSON schema is not JSON: {error}"
            raise _WrongValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"a JSON schema must be an object, not {_shown(value)}"
        raise _WrongValueError(msg)
    return value
