"""What each field of a question may hold, and what no field may: JSON that the rest of the fleet could not carry.

Each check returns the value as a question has it, or raises `UnusableError` with a reason for people who look for a
slip in line 48 217. By hand and not by pydantic for that, and because this runs for every line of every file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from wire.messages import MAX_MODEL_CHARS, MAX_PRIORITY, MAX_REQUEST_ID_CHARS, JsonObject

MAX_NESTING = 100
"""Levels of lists and objects in one another; pydantic, which checks the message later, refuses 255."""

INVALID_ID_PREFIX = "invalid-line-"
"""Start of the id of a question that has none of its own because its line cannot be used. No other id may start so."""

_BEYOND_64_BITS = float(2**63)
_EXACT_FLOATS = 2**53
_TOO_DEEP = f"it is nested more than {MAX_NESTING} levels deep; flatten it"
_INTEGERS = range(-(2**63), 2**64)
_INTEGER_DIGITS = 21
_NO_JSON_NUMBER = re.compile(r"-?(?:NaN|Infinity|nan|inf)\b")


class UnusableError(Exception):
    """Carries the reason why a question cannot be used to where its `Invalid` is made; never further."""


def read_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UnusableError: It is something else; the reason names the column.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UnusableError(_why_not_json(raw, error)) from None
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        msg = 'it is a list of messages, not an object; write {"messages": [...]} around it'
        raise UnusableError(msg)
    if not isinstance(value, dict):
        msg = f"it is {kind(value)}, not an object; write {{...}} with a `question` in it"
        raise UnusableError(msg)
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        msg = f"`{name}` is {kind(value)}, not a text"
        raise UnusableError(msg)
    if not value or value.isspace():
        msg = f"`{name}` is empty; write what is to be asked"
        raise UnusableError(msg)
    return value


def request_id_of(value: object, name: str) -> str:
    """Check an id; an integer becomes its decimal digits.

    Raises:
        UnusableError: It cannot be an id.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOATS:
        # A table that lacks one id has made floats of the others.
        return str(int(value))
    if not isinstance(value, str):
        msg = f"`{name}` is {kind(value)}, not a text or an integer of at most 64 bits"
        raise UnusableError(msg)
    if not value or value.isspace() or len(value) > MAX_REQUEST_ID_CHARS:
        msg = (
            f"`{name}` has {len(value)} characters; 1 to {MAX_REQUEST_ID_CHARS} that are not all blank are allowed, or "
            "leave it out"
        )
        raise UnusableError(msg)
    if value.startswith(INVALID_ID_PREFIX):
        msg = (
            f"`{name}` starts with {INVALID_ID_PREFIX!r}, which is kept for questions that cannot be used; choose "
            "another"
        )
        raise UnusableError(msg)
    return value


def _model(value: object, name: str) -> str:
    text = _text(value, name)
    if len(text) > MAX_MODEL_CHARS:
        msg = f"`{name}` has {len(text)} characters, at most {MAX_MODEL_CHARS} are allowed"
        raise UnusableError(msg)
    return text


def _json_object(value: object, name: str) -> JsonObject:
    if not isinstance(value, dict):
        msg = f"`{name}` is {kind(value)}, not an object"
        raise UnusableError(msg)
    return value


def _priority(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        msg = f"`{name}` is {shown(value)}, not an integer from 0 to {MAX_PRIORITY}"
        raise UnusableError(msg)
    return value


def _deadline(value: object, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        msg = f"`{name}` is {shown(value)}, not a number of seconds above 0"
        raise UnusableError(msg)
    return float(value)


def _messages(value: object, name: str) -> list[JsonObject]:
    if not isinstance(value, list):
        msg = f"`{name}` is {kind(value)}, not a list of messages"
        raise UnusableError(msg)
    for number, message in enumerate(value, 1):
        if problem := _problem_of_message(message):
            msg = f"message {number} of `{name}` {problem}"
            raise UnusableError(msg)
    if all(isinstance(message.get("content"), str) and not message["content"].strip() for message in value):
        msg = f"there is no text in `{name}`; write what is to be asked"
        raise UnusableError(msg)
    return value


def _problem_of_message(message: object) -> str | None:
    if not isinstance(message, dict):
        return f"is {kind(message)}, not an object with `role` and `content`"
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        return 'has no `role`, such as "user"'
    if content is None:
        return None if message.get("tool_calls") else "has neither `content` nor `tool_calls`"
    if isinstance(content, str):
        return None
    if (
        isinstance(content, list)
        and content
        and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content)
    ):
        return None
    return "has a `content` that is neither a text nor a list of parts with a `type` each"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a question in our own form.

    Attributes:
        check: Takes value and name, and returns the value as a question has it. A null is the same as no field and is
            not checked.
        holds, missing: What it holds, and what counts if it is missing; for people, in Markdown.
    """

    check: Callable[[Any, str], Any]
    holds: str
    missing: str = ""


_ASKED = "the text that is asked, as it stands"
_ONE_OF_THREE = "one of `question`, `prompt` and `messages` must be there"
FIELDS: dict[str, Field] = {
    "id": Field(
        request_id_of,
        f"text of 1 to {MAX_REQUEST_ID_CHARS} characters, or an integer; unique in the file",
        "derived from row and position, such as `0000001-5d3a90c1`; the same on every resubmission",
    ),
    "question": Field(_text, _ASKED, _ONE_OF_THREE),
    "prompt": Field(_text, _ASKED, "the same"),
    "messages": Field(
        _messages, "chat messages in OpenAI's form; the worker applies the model's chat template", "the same"
    ),
    "model": Field(
        _model,
        "the model that is to answer",
        "the run's (`--model`, or the configured one; `--served-as` wins over a name here)",
    ),
    "params": Field(
        _json_object,
        "sampling parameters, OpenAI's names and vLLM's: [Parameters](#parameters)",
        "the configured ones",
    ),
    "priority": Field(_priority, f"0 to {MAX_PRIORITY}; higher goes first, from when it is submitted", "0"),
    "deadline_s": Field(
        _deadline,
        "seconds from submission after which nobody wants the answer; what has none by then fails as `expired`",
        "no deadline",
    ),
    "metadata": Field(_json_object, "any object; returned untouched"),
}


def ensure_carriable(values: Iterable[object], raw: bytes) -> None:
    """Refuse what orjson reads but the way to the worker would change or break.

    Deep nesting, and integers beyond 64 bits.

    Args:
        values: What is to be carried.
        raw: The text that they come from.
    """
    # orjson makes floats of integers beyond 64 bits, so a large float may have been one.
    if _has_large_float(values, MAX_NESTING) and _has_huge_integer(raw):
        msg = "it holds an integer beyond 64 bits; write that as a string"
        raise UnusableError(msg)


def _has_large_float(values: Iterable[object], levels: int) -> bool:
    if not levels:
        raise UnusableError(_TOO_DEEP)
    found = False
    for value in values:
        if isinstance(value, float):
            found |= abs(value) >= _BEYOND_64_BITS
        elif isinstance(value, dict):
            found |= _has_large_float(value.values(), levels - 1)
        elif isinstance(value, list):
            found |= _has_large_float(value, levels - 1)
    return found


def _has_huge_integer(raw: bytes) -> bool:
    # Python's own reader keeps integers apart from floats. The digits are not always counted on: int() of very many is
    # slow, and forbidden.
    found: list[bool] = []
    json.loads(
        raw, parse_int=lambda digits: found.append(len(digits) > _INTEGER_DIGITS or int(digits) not in _INTEGERS)
    )
    return any(found)


def _why_not_json(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as problem:
        return f"it is not UTF-8 (byte 0x{raw[problem.start]:02x} at byte {problem.start + 1}); save the file as UTF-8"
    place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} of it, column {error.colno}"
    if "surrogate" in error.msg:
        return (
            f"the string at {place} holds half of a surrogate pair, such as \\ud800 alone; write the whole character, "
            "or remove it"
        )
    if "depth limit" in error.msg or "ecursion limit" in error.msg:
        return _TOO_DEEP
    if found := _NO_JSON_NUMBER.match(text, error.pos):
        return f"{found[0]} at {place} is not JSON; write null, or leave the field out"
    advice = "; a question must be whole, and in JSON Lines on one line" if error.pos >= len(text) else ""
    return f"it is not JSON ({error.msg.partition(': line ')[0]} at {place}){advice}"


def kind(value: object) -> str:
    """What a value is, in words."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


def shown(value: object) -> str:
    """A value as it may stand in a message: itself if it is short, else what it is."""
    return (
        "missing"
        if value is None
        else kind(value)
        if isinstance(value, dict | list)
        else short(orjson.dumps(value).decode())
    )


def short(text: str) -> str:
    """Enough of a text to recognize it by."""
    most = 60
    return text if len(text) <= most else f"{text[:most]}..."


def no_such_column(name: str, known: Iterable[str]) -> str:
    """That a column is missing, with the nearest that there is and what there is at all; no full stop."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]!r}? The" if near else "the"
    return f"there is no column {short(name)!r}; {advice} columns are {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Names as they may stand in a message: the first twenty, and how many more there are."""
    shown = [short(name) for name in names]
    most = 20
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
