"""What each field of a question may hold, and what no field may: JSON that the rest of the fleet could not carry.

Each check returns the value as a question has it, or raises `UnusableError` with a reason for people who look for a
slip in line 48 217. By hand and not by pydantic for that, and because this runs for every line of every file.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from producer.questions.json_object import EXACT_FLOATS, UnusableError, kind, short, shown
from wire.messages import MAX_MODEL_CHARS, MAX_PRIORITY, MAX_REQUEST_ID_CHARS, JsonObject

INVALID_ID_PREFIX = "invalid-line-"
"""Start of the id of a question that has none of its own because its line cannot be used. No other id may start so."""


def text_of(value: object, name: str) -> str:
    """Check a text; raises UnusableError if it is not one."""
    if not isinstance(value, str):
        raise UnusableError(f"`{name}` is {kind(value)}, not a text")
    if not value or value.isspace():
        raise UnusableError(f"`{name}` is empty; write what should be asked")
    return value


def request_id_of(value: object, name: str) -> str:
    """Check an id; an integer becomes its decimal digits.

    Raises:
        UnusableError: It cannot be an id.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOATS:
        # A table that lacks one id has made floats of the others.
        return str(int(value))
    if not isinstance(value, str):
        raise UnusableError(f"`{name}` is {kind(value)}, not a text or an integer of at most 64 bits")
    if not value or value.isspace() or len(value) > MAX_REQUEST_ID_CHARS:
        raise UnusableError(
            f"`{name}` has {len(value)} characters; 1 to {MAX_REQUEST_ID_CHARS} that are not all blank are allowed, or "
            "leave it out"
        )
    if value.startswith(INVALID_ID_PREFIX):
        raise UnusableError(
            f"`{name}` starts with {INVALID_ID_PREFIX!r}, which is reserved for questions that cannot be used; choose "
            "another"
        )
    return value


def _model(value: object, name: str) -> str:
    text = text_of(value, name)
    if len(text) > MAX_MODEL_CHARS:
        raise UnusableError(f"`{name}` has {len(text)} characters, at most {MAX_MODEL_CHARS} are allowed")
    return text


def _json_object(value: object, name: str) -> JsonObject:
    if not isinstance(value, dict):
        raise UnusableError(f"`{name}` is {kind(value)}, not an object")
    return value


def _priority(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_PRIORITY:
        raise UnusableError(f"`{name}` is {shown(value)}, not an integer from 0 to {MAX_PRIORITY}")
    return value


def _deadline(value: object, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise UnusableError(f"`{name}` is {shown(value)}, not a number of seconds above 0")
    return float(value)


def _messages(value: object, name: str) -> list[JsonObject]:
    if not isinstance(value, list):
        raise UnusableError(f"`{name}` is {kind(value)}, not a list of messages")
    for number, message in enumerate(value, 1):
        if problem := _problem_of_message(message):
            raise UnusableError(f"message {number} of `{name}` {problem}")
    if all(isinstance(message.get("content"), str) and not message["content"].strip() for message in value):
        raise UnusableError(f"there is no text in `{name}`; write what should be asked")
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


_ASKED = "the text to ask, as it stands"
_ONE_OF_THREE = "one of `question`, `prompt`, `messages` is needed, or the fields for vectors"
FIELDS: dict[str, Field] = {
    "id": Field(
        request_id_of,
        f"text of 1 to {MAX_REQUEST_ID_CHARS} characters, or an integer; unique in the file",
        "derived from row and position, such as `0000001-5d3a90c1`",
    ),
    "question": Field(text_of, _ASKED, _ONE_OF_THREE),
    "prompt": Field(text_of, _ASKED, "the same"),
    "messages": Field(_messages, "chat messages in OpenAI's form, for the model's chat template", "the same"),
    "model": Field(
        _model, "the model to ask", "the run's (`--model` or the configuration); `--served-as` wins over both"
    ),
    "params": Field(_json_object, "[parameters](#parameters), under OpenAI's or vLLM's names", "the configured ones"),
    "priority": Field(_priority, f"0 to {MAX_PRIORITY}; higher goes first", "0"),
    "deadline_s": Field(
        _deadline, "seconds from submission after which the question fails as `expired`", "no deadline"
    ),
    "metadata": Field(_json_object, "any object; returned unchanged"),
}


def no_such_column(name: str, known: Iterable[str]) -> str:
    """That a column is missing, with the nearest that there is and what there is at all; no full stop."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]!r}? The" if near else "the"
    return f"there is no column {short(name)!r}; {advice} columns are {listed(names)}"


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first twenty, and how many more there are."""
    shown = [short(name) for name in names]
    most = 20
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
