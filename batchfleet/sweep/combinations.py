"""Which runs a `sweep:` asks for, and what each is called. Pure."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pydantic import JsonValue

from batchfleet.settings.schema import SweepSettings
from wire.errors import UsageError

MAX_COMBINATIONS = 256
"""More runs than this are not a comparison any more; a slip in the grid should not cost a month of GPU time."""
MAX_NAME_CHARS = 80
NAME = "name"
_NOT_SWEPT = ("redis", "sweep", "limits", "leases")


@dataclass(frozen=True, slots=True)
class Combination:
    """One run of a sweep.

    Attributes:
        name: Of the run and its file; letters, digits, dots, underscores and hyphens, unique in the sweep also where
            case does not count.
        overrides: Settings, as keys stand in a file, that differ from the rest of the configuration.
    """

    name: str
    overrides: Mapping[str, JsonValue]


def combinations(sweep: SweepSettings) -> list[Combination]:
    """Every entry of `runs` with every combination of the values of `grid`, the last key of the grid changing fastest.

    Raises:
        UsageError: Nothing is swept, too much is, or something in it cannot be meant.
    """
    if not sweep.grid and not sweep.runs:
        raise UsageError(
            "nothing is swept; give `sweep:` a `grid:` (setting: list of values), or `runs:` (a list of settings), in "
            "the --config file"
        )
    axes = {key: _values(key, values) for key, values in sweep.grid.items()}
    listed = [_listed(number, run, axes) for number, run in enumerate(sweep.runs, 1)] or [("", {})]
    count = len(listed)
    for values in axes.values():
        count *= len(values)
    if count > MAX_COMBINATIONS:
        sizes = " x ".join(
            [
                *([f"{len(listed)} runs"] if sweep.runs else []),
                *(f"{len(values)} {key}" for key, values in axes.items()),
            ]
        )
        raise UsageError(
            f"sweep: {sizes} are {count} combinations, and {MAX_COMBINATIONS} is the most; "
            "leave values out, or make several sweeps"
        )
    made = [
        (name, own, dict(zip(axes, values, strict=True)))
        for name, own in listed
        for values in itertools.product(*axes.values())
    ]
    return list(_named(made))


def _values(key: str, values: JsonValue) -> list[JsonValue]:
    _ensure_sweepable(f"sweep.grid.{key}", key)
    if not isinstance(values, list) or not values:
        raise UsageError(f"sweep.grid.{key}: it must be a list of one or more values, such as [0.0, 0.7]")
    if len({_text(value) for value in values}) < len(values):
        raise UsageError(f"sweep.grid.{key}: a value is in it twice; each run would be made twice")
    return values


def _listed(number: int, run: JsonValue, axes: Mapping[str, object]) -> tuple[str, dict[str, JsonValue]]:
    where = f"sweep.runs, entry {number}"
    if not isinstance(run, dict) or not run:
        raise UsageError(
            f"{where}: it must be a mapping of settings, such as {{temperature: 0.7}}, with or without a `{NAME}`"
        )
    overrides = {key: value for key, value in run.items() if key != NAME}
    name = run.get(NAME, "")
    if not isinstance(name, str) or (NAME in run and not _slug(name)):
        raise UsageError(f"{where}: `{NAME}` must be a text of letters, digits, dots, underscores and hyphens")
    for key in overrides:
        _ensure_sweepable(f"{where}: {key}", key)
        if key in axes:
            raise UsageError(f"{where}: {key} is in the grid as well; keep one of the two")
    return name, overrides


def _ensure_sweepable(where: str, key: str) -> None:
    if key.split(".", maxsplit=1)[0] in _NOT_SWEPT:
        raise UsageError(f"{where}: cannot be swept; only what concerns the model and how it is fed can")


def _named(made: Sequence[tuple[str, dict[str, JsonValue], dict[str, JsonValue]]]) -> Iterator[Combination]:
    seen: dict[str, dict[str, JsonValue]] = {}
    for given, own, gridded in made:
        overrides = {**own, **gridded}
        parts = [_slug(given)] if given else [_part(key, value) for key, value in own.items()]
        name = "_".join([*parts, *(_part(key, value) for key, value in gridded.items())])
        digest = blake2b(_text(overrides).encode(), digest_size=4).hexdigest()
        if len(name) > MAX_NAME_CHARS:
            name = f"{name[: MAX_NAME_CHARS - 9]}-{digest}"
        if name.lower() in seen:
            if seen[name.lower()] == overrides or given:
                raise UsageError(
                    f"sweep: two runs would be called {name}; "
                    f"give each entry of `runs` settings, or a `{NAME}`, of its own"
                )
            name = f"{name[: MAX_NAME_CHARS - 9]}-{digest}"
        seen[name.lower()] = overrides
        yield Combination(name, overrides)


def _part(key: str, value: JsonValue) -> str:
    text = value if isinstance(value, str) else _text(value)
    if not re.fullmatch(r"-?[0-9.]+", text):  # A minus belongs to its number.
        text = _slug(text) or "none"
    return f"{_slug(key.rpartition('.')[2]) or 'setting'}-{text}"


def _slug(text: str) -> str:
    """What can stand in the name of a file and of a run."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
