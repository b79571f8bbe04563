"""The parameters that a question may have: OpenAI's names and vLLM's, and their values. Knows no engine.

Canonical are the names of vLLM's `SamplingParams`, plus `structured_outputs` (see `wire.structured_output`), `logprobs`
as a count, `lora` (an adapter's name) and what shapes a chat prompt. Other spellings become these, in
`wire.canonical_params`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wire.structured_output import GUIDED

if TYPE_CHECKING:
    from pydantic import JsonValue

    from wire.messages import JsonObject

Reach = Literal["everywhere", "bookkeeping", "servers", "other servers"]
"""Who acts on a parameter: every engine; nobody, but servers are told; servers, but not vLLM in process.

Servers other than vLLM's own.
"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter takes, and who acts on it.

    Attributes:
        takes: For people, in Markdown.
        read: Gives the value as it is recorded, and None for what cannot be one.
        absent: Values that ask for nothing.
        chat_only: Whether it means nothing to a prompt.
        note: What else there is to say of it; for people, in Markdown.
    """

    takes: str
    read: Callable[[JsonValue], JsonValue] = lambda value: value
    reach: Reach = "everywhere"
    absent: tuple[JsonValue, ...] = ()
    chat_only: bool = False
    note: str = ""


def _number(value: JsonValue) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def _number_that(allowed: Callable[[float], bool]) -> Callable[[JsonValue], JsonValue]:
    def read(value: JsonValue) -> JsonValue:
        number = _number(value)
        return number if number is not None and allowed(number) else None

    return read


def whole_number_from(low: int, high: int = 2**63 - 1) -> Callable[[JsonValue], JsonValue]:
    """Reads an integer between these, also one written as 3.0."""

    def read(value: JsonValue) -> JsonValue:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None

    return read


def one_of(texts: Collection[str]) -> Callable[[JsonValue], JsonValue]:
    """Reads one of these texts."""
    return lambda value: value if isinstance(value, str) and value in texts else None


def _texts(value: JsonValue) -> JsonValue:
    texts: list[JsonValue] = value if isinstance(value, list) else [value]
    return texts if all(isinstance(text, str) and text for text in texts) else None


def _token_ids(value: JsonValue) -> JsonValue:
    fits = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )
    return value if fits else None


def _biases(value: JsonValue) -> JsonValue:
    if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
        return None
    biases: JsonObject = {key: _number(bias) for key, bias in value.items()}
    return None if None in biases.values() else biases


def _objects(value: JsonValue) -> JsonValue:
    return value if isinstance(value, list) and all(isinstance(one, dict) for one in value) else None


def _tool_choice(value: JsonValue) -> JsonValue:
    return value if isinstance(value, dict) or value in ("auto", "none", "required") else None


def _extra_body(value: JsonValue) -> JsonValue:
    return value if isinstance(value, dict) and RESERVED.isdisjoint(value) else None


RESERVED = frozenset({"model", "messages", "prompt", "stream", "stream_options"})
"""What only we say to a server."""

_FLAG = Parameter("true or false", lambda value: value if isinstance(value, bool) else None)
_TEXT = Parameter("a text", lambda value: value if isinstance(value, str) and value else None)
_OBJECT = Parameter("an object", lambda value: value if isinstance(value, dict) else None)
_PENALTY = Parameter("a number from -2 to 2", _number_that(lambda value: -2 <= value <= 2))  # noqa: PLR2004 - OpenAI's range, named beside it
_FOR_CHATS = Parameter(_FLAG.takes, _FLAG.read, chat_only=True)
_BOOKKEEPING = Parameter("anything", reach="bookkeeping")


def _for_servers(*absent: JsonValue, reach: Reach = "servers", note: str = "") -> Parameter:
    """A parameter that only a server can check and use."""
    return Parameter("anything", reach=reach, absent=absent, note=note)


PARAMETERS: dict[str, Parameter] = {
    "temperature": Parameter("a number of at least 0", _number_that(lambda value: value >= 0)),
    "top_p": Parameter("a number above 0 and at most 1", _number_that(lambda value: 0 < value <= 1)),
    "top_k": Parameter("an integer of at least 1, or 0 or -1 for no limit", whole_number_from(-1)),
    "min_p": Parameter("a number from 0 to 1", _number_that(lambda value: 0 <= value <= 1)),
    "repetition_penalty": Parameter("a number above 0", _number_that(lambda value: value > 0)),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "seed": Parameter("an integer of at most 64 bits", whole_number_from(-(2**63))),
    "n": Parameter("an integer of at least 1", whole_number_from(1)),
    "max_tokens": Parameter(
        "an integer of at least 1", whole_number_from(1), note="lowered to what fits after the prompt"
    ),
    "min_tokens": Parameter("an integer of at least 0", whole_number_from(0)),
    "stop": Parameter("a text that is not empty, or a list of such", _texts, absent=([],)),
    "stop_token_ids": Parameter("a list of token ids", _token_ids, absent=([],)),
    "ignore_eos": _FLAG,
    "logprobs": Parameter(
        "true, false, or how many alternatives to show, at least 0", whole_number_from(0), absent=(False,)
    ),
    "prompt_logprobs": Parameter("an integer of at least 0", whole_number_from(0)),
    "logit_bias": Parameter("an object of token ids with a number each", _biases, absent=({},)),
    "allowed_token_ids": Parameter("a list of token ids", _token_ids),
    "bad_words": Parameter("a text that is not empty, or a list of such", _texts, absent=([],)),
    "skip_special_tokens": _FLAG,
    "spaces_between_special_tokens": _FLAG,
    "include_stop_str_in_output": _FLAG,
    "thinking_token_budget": Parameter("an integer of at least 0, or -1 for no limit", whole_number_from(-1)),
    "structured_outputs": Parameter("an object with one of json, regex, choice, grammar, json_object", _OBJECT.read),
    "lora": Parameter("a text", _TEXT.read, note="the adapter's name; on servers, the model's"),
    "add_special_tokens": _FLAG,
    "add_generation_prompt": _FOR_CHATS,
    "continue_final_message": _FOR_CHATS,
    "chat_template_kwargs": Parameter("an object", _OBJECT.read, absent=({},), chat_only=True),
    "reasoning_effort": Parameter("a text", _TEXT.read, chat_only=True),
    "extra_body": Parameter(
        f"an object without {', '.join(sorted(RESERVED))}",
        _extra_body,
        "servers",
        absent=({},),
        note="merged into the request unchecked",
    ),
    "tools": Parameter(
        "a list of objects as OpenAI has them",
        _objects,
        absent=([],),
        chat_only=True,
        note="calls arrive in `tool_calls`; vLLM in process needs `tool_call_parser` in `vllm_args`",
    ),
    "tool_choice": Parameter(
        "`auto`, `none`, `required`, or an object that names one of `tools`",
        _tool_choice,
        chat_only=True,
        note="without `tools`, `none` is as if absent",
    ),
    "parallel_tool_calls": Parameter(_FLAG.takes, _FLAG.read, chat_only=True, note="without `tools` as if absent"),
    "truncate_prompt_tokens": _for_servers(),
    "use_beam_search": _for_servers(False),  # noqa: FBT003 - a value of JSON
    "length_penalty": _for_servers(1),
    "echo": _for_servers(False),  # noqa: FBT003
    "priority": _for_servers(0, note="the fleet's own `priority` is a field of the question"),
    "mm_processor_kwargs": _for_servers({}),
    "vllm_xargs": _for_servers({}),
    "functions": _for_servers([], reach="other servers"),
    "function_call": _for_servers("none", reach="other servers"),
    "modalities": _for_servers(["text"], reach="other servers"),
    "audio": _for_servers(reach="other servers"),
    "prediction": _for_servers(reach="other servers"),
    "verbosity": _for_servers(reach="other servers"),
    "web_search_options": _for_servers(reach="other servers"),
    "best_of": _for_servers(1, reach="other servers"),
    "suffix": _for_servers("", reach="other servers"),
    "user": _BOOKKEEPING,
    "store": _BOOKKEEPING,
    "service_tier": _BOOKKEEPING,
    "safety_identifier": _BOOKKEEPING,
    "prompt_cache_key": _BOOKKEEPING,
    "prompt_cache_retention": _BOOKKEEPING,
}

SPELLINGS: dict[str, str] = {
    "max_completion_tokens": "`max_tokens`, and wins over it; sent under this name with chats",
    "top_logprobs": "the count of `logprobs`, which must be true",
    "response_format": "`structured_outputs`; of type text, json_object or json_schema; sent as it is",
    **dict.fromkeys(GUIDED, "`structured_outputs` with what the name says"),
    "stream": "nothing; false or null, because answers arrive whole",
    "stream_options": "nothing; null, because answers arrive whole",
}
"""Other names -> what they mean; for people, in Markdown."""

NAMES: frozenset[str] = frozenset({*PARAMETERS, *SPELLINGS})
"""Every name that a question may use."""

CHAT_ONLY = frozenset(name for name, parameter in PARAMETERS.items() if parameter.chat_only)


def names_of(*reaches: Reach) -> frozenset[str]:
    """The parameters with that reach."""
    return frozenset(name for name, parameter in PARAMETERS.items() if parameter.reach in reaches)
