"""Bytes -> a JSON object that the rest of the fleet can carry, or what is wrong with it, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

MAX_NESTING = 100
"""Levels of lists and objects in one another; pydantic, which checks the message later, refuses 255."""

_BEYOND_64_BITS = float(2**63)

EXACT_FLOATS = 2**53

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
        raise UnusableError('it is a list of messages, not an object; write {"messages": [...]} around it')
    if not isinstance(value, dict):
        raise UnusableError(f"it is {kind(value)}, not an object; write {{...}} with a `question` in it")
    return value


def ensure_carriable(values: Iterable[object], raw: bytes) -> None:
    """Refuse what orjson reads but the way to the worker would change or break.

    Deep nesting, and integers beyond 64 bits.

    Args:
        values: What is to be carried.
        raw: The text that they come from.
    """
    # orjson makes floats of integers beyond 64 bits, so a large float may have been one.
    if _has_large_float(values, MAX_NESTING) and _has_huge_integer(raw):
        raise UnusableError("it holds an integer beyond 64 bits; write that as a string")


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
    """A value for a message: itself if short, else its kind."""
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
