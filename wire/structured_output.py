"""Structured output, in any of its spellings, as `structured_outputs` with exactly one constraint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from wire.errors import ParameterError, nearest, shown

if TYPE_CHECKING:
    from pydantic import JsonValue

    from wire.messages import JsonObject

STRUCTURES = ("json", "regex", "choice", "grammar", "json_object")

GUIDED = {f"guided_{structure}": structure for structure in STRUCTURES}
"""Names of older versions of vLLM."""


def structure_of(given: Mapping[str, JsonValue]) -> JsonObject:
    """`structured_outputs` as it is recorded; empty if none of the parameters `given` asks for any.

    Null does not occur among them.

    Raises:
        ParameterError: What it asks for is not a schema (`bad_schema`).
    """
    found: JsonObject = {}
    if "structured_outputs" in given:
        found.update(_constraints(given["structured_outputs"]))
    if "response_format" in given:
        found.update(_of_response_format(given["response_format"]))
    found.update({structure: given[name] for name, structure in GUIDED.items() if name in given})
    if len(found) > 1:
        _refuse(f"structured output takes one constraint, not {len(found)}: {', '.join(sorted(found))}")
    return {"structured_outputs": {name: _constraint(name, value) for name, value in found.items()}} if found else {}


def _refuse(message: str) -> NoReturn:
    raise ParameterError(message, "bad_schema")


def _constraints(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        _refuse(f"parameter 'structured_outputs' must be an object, not {shown(value)}")
    constraints: JsonObject = {name: constraint for name, constraint in value.items() if constraint is not None}
    for name in constraints:
        if name not in STRUCTURES:
            _refuse(
                f"'structured_outputs' has no {name!r}{nearest(name, STRUCTURES)}; it takes one of "
                f"{', '.join(STRUCTURES)}"
            )
    if not constraints:
        _refuse(f"'structured_outputs' takes one of {', '.join(STRUCTURES)}")
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
        _refuse("'response_format' of type json_schema needs json_schema.schema")
    what = f"not {shown(kind)}" if isinstance(value, dict) else f"and is {shown(value)}"
    _refuse(f"'response_format' must have the type text, json_object or json_schema, {what}")


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
        _refuse(f"the {name} constraint must be {wanted}, not {shown(value)}")
    return value


def _schema(value: JsonValue) -> JsonValue:
    """A JSON schema as an object; vLLM also takes it as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            _refuse(f"the JSON schema is not JSON: {error}")
    if not isinstance(value, dict):
        _refuse(f"a JSON schema must be an object, not {shown(value)}")
    return value
