"""From given values to `Settings`, or to one error that names everything that is wrong, in people's words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchfleet.settings import setting_names
from batchfleet.settings.blocks import Where
from batchfleet.settings.layers import GivenValue, Problem, dotted, kind_of
from batchfleet.settings.schema import Settings
from batchfleet.settings.sections.section import Contradiction, number_text
from batchfleet.settings.setting_names import KeyPath
from wire.errors import UsageError

MAX_PROBLEMS = 30
"""Most problems that one error lists; who has more of them has one problem with the whole file."""

_LARGE = 10**20


def checked(given: Mapping[KeyPath, GivenValue], problems: Sequence[Problem] = ()) -> Settings:
    """The settings that the values give.

    Args:
        problems: What is known to be wrong already; told together with what is found here.

    Raises:
        UsageError: One line for each problem.
    """
    found = list(problems)
    try:
        root: dict[str, Any] = {}
        for path, (value, _) in given.items():
            section = root
            for name in path[:-1]:
                section = section.setdefault(name, {})
            section[path[-1]] = value
        settings = Settings.model_validate(root)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        found += _wrong_values(details, given)
        # What contradicts what is only worth saying once everything else is right.
        found += () if found else _contradictions(details, given)
        settings = Settings()
    if found:
        raise UsageError(_told(found)) from None
    return settings


def _told(problems: Sequence[Problem]) -> str:
    # The environment and the command line first, then the file from top to bottom.
    lines = list(dict.fromkeys(str(problem) for problem in sorted(problems, key=lambda problem: problem.where.line)))
    more = len(lines) - MAX_PROBLEMS
    return "\n".join([*lines[:MAX_PROBLEMS], f"... and {more} more problems"] if more > 0 else lines)


def _wrong_values(details: Sequence[ErrorDetails], given: Mapping[KeyPath, GivenValue]) -> Iterator[Problem]:
    by_setting: dict[KeyPath, ErrorDetails] = {}
    for detail in details:
        if detail["type"] != "contradiction":
            path = next(path for path in _upwards(detail["loc"]) if path in given)
            # A setting of several kinds fails once for each: what is wrong with the value tells more than which kind it
            # is not.
            if path not in by_setting or by_setting[path]["type"] in {"string_type", "list_type"}:
                by_setting[path] = detail
    for path, detail in by_setting.items():
        yield Problem(given[path].where, dotted(path), _wrong_value(path, given[path].value, detail))


def _upwards(loc: Sequence[int | str]) -> Iterator[KeyPath]:
    names = tuple(str(part) for part in loc)
    return (names[:end] for end in range(len(names), 0, -1))


def _wrong_value(path: KeyPath, value: object, detail: ErrorDetails) -> str:
    if detail["type"] in {"not_safe", "not_a_redis_url"}:
        return detail["msg"]
    if path not in setting_names.KINDS:
        return f"{kind_of(value)} inside is nothing that YAML can hold; give numbers, texts, lists and mappings"
    return _unfit(path, value, detail)


def _unfit(path: KeyPath, value: object, detail: ErrorDetails) -> str:
    wanted = f"give {setting_names.expected(path)}"
    if "too_short" in detail["type"]:
        return f"is empty; {wanted}, or leave the key out"
    if "too_long" in detail["type"]:
        return f"is longer than {detail['ctx']['max_length']}; {wanted} no longer than that"
    kinds = setting_names.KINDS[path]
    numbers = {int, float, bool} >= set(kinds)
    is_number = isinstance(value, bool | int | float)
    if numbers and isinstance(value, str) and re.fullmatch(r"[-+0-9._eE]{1,20}|true|false", value):
        return f'is the text "{value}"; {wanted}, without quotes'
    if is_number and not numbers:
        # Not the number itself: it may be somebody's password.
        return f"is {kind_of(value)}; {wanted}, in quotes"
    what = _amount(value) if is_number else "none of those" if detail["type"] == "literal_error" else kind_of(value)
    return f"is {what}; {wanted}"


def _amount(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    return number_text(value) if isinstance(value, int | float) and abs(value) < _LARGE else "a very large number"


def _contradictions(details: Sequence[ErrorDetails], given: Mapping[KeyPath, GivenValue]) -> Iterator[Problem]:
    for detail in details:
        if detail["type"] == "contradiction":
            section = tuple(str(part) for part in detail["loc"])
            found: Sequence[Contradiction] = detail["ctx"]["found"]
            for keys, text in found:
                paths = [(*section, key) for key in keys]
                path = next((path for path in paths if path in given), paths[0])
                where = given[path].where if path in given else Where("defaults")
                yield Problem(where, dotted(path), text)
