"""Names of settings: keys, their short forms, environment variables, and what each takes.

All of it is made from the schema; nothing here is kept by hand.
"""

from __future__ import annotations

import difflib
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from batchfleet.settings import distllm
from batchfleet.settings.schema import Settings
from batchfleet.settings.sections.section import number_text

KeyPath = tuple[str, ...]
"""Names from the outermost section to a key."""

ENVIRONMENT_PREFIX = "BATCHFLEET_"
RESERVED_VARIABLES = frozenset(
    {"BATCHFLEET_GATEWAY_KEYS", "BATCHFLEET_GATEWAY_TLS_PASSWORD", "BATCHFLEET_GPUS", "BATCHFLEET_REDIS_SERVER"}
)
"""Variables with our prefix that are no settings.

Which GPUs a worker may claim is a fact of its container, no file names a program to start, and a gateway has flags.
"""

_GENERATOR: KeyPath = ("model", "generator_settings")
# Sections whose settings people write without saying where they belong, as the guide does. They win over others of the
# same name.
_SHORT_FORMS: tuple[KeyPath, ...] = (_GENERATOR, ("processing",))
# Alone at the top of a file this is meant for vLLM, but the only setting of that name is the stub's: better to ask than
# to guess.
_NEVER_SHORT = frozenset({"max_num_seqs"})


def _bare(annotation: object) -> tuple[type, ...]:
    """The types that an annotation allows, without None and without what Annotated adds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return tuple(kind for part in get_args(annotation) for kind in _bare(part) if kind is not types.NoneType)
    if origin is Literal:
        return (type(get_args(annotation)[0]),)
    kind = origin or annotation
    return (kind,) if isinstance(kind, type) else ()


def _fields(section: type[BaseModel], above: KeyPath) -> Iterator[tuple[KeyPath, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield (*above, name), field
        kind = _bare(field.annotation)[0]
        if issubclass(kind, BaseModel):
            yield from _fields(kind, (*above, name))


FIELDS: dict[KeyPath, FieldInfo] = dict(_fields(Settings, ()))
"""Every section and every setting, in the order of the schema."""

KINDS: Mapping[KeyPath, tuple[type, ...]] = {path: _bare(field.annotation) for path, field in FIELDS.items()}
SECTIONS = frozenset(path for path, kinds in KINDS.items() if issubclass(kinds[0], BaseModel)) | {()}
SETTINGS: tuple[KeyPath, ...] = tuple(path for path in FIELDS if path not in SECTIONS)
MAPPINGS = frozenset(path for path in SETTINGS if KINDS[path] == (dict,))
"""Settings that take any keys (`vllm_args`)."""
SECRETS = frozenset(path for path in SETTINGS if SecretStr in KINDS[path])


def _short_names() -> dict[str, KeyPath]:
    inner = [path for path in FIELDS if len(path) > 1]
    how_often = Counter(path[-1] for path in inner)
    preferred = {path[-1]: path for path in inner if path[:-1] in _SHORT_FORMS}
    names = {path[-1]: path for path in inner if how_often[path[-1]] == 1} | preferred
    return {name: path for name, path in names.items() if (name,) not in FIELDS and name not in _NEVER_SHORT}


SHORT_NAMES: Mapping[str, KeyPath] = _short_names()
"""Keys that may stand at the top of a file, as the guide's fragments have them, with the place that each means."""


def _variables() -> dict[str, KeyPath]:
    short = {path[-1]: path for path in SETTINGS if path[:-1] in _SHORT_FORMS}
    names = short | {"_".join(path): path for path in SETTINGS}
    return {ENVIRONMENT_PREFIX + name.upper(): path for name, path in names.items()}


ENVIRONMENT: Mapping[str, KeyPath] = _variables()
"""Every environment variable that is a setting.

A setting that has a short variable and a long one takes the long one.
"""


def variable(path: KeyPath) -> str:
    """The full name of a setting's environment variable."""
    return ENVIRONMENT_PREFIX + "_".join(path).upper()


def place(section: KeyPath, key: str) -> KeyPath | None:
    """Where a key found in a section belongs; None if nowhere."""
    path = distllm.ALIASES.get((*section, key), (*section, key))
    if path in FIELDS:
        return path
    return SHORT_NAMES.get(key) if section == () else None


def what_instead(section: KeyPath, key: str, *, of_section: bool) -> str:
    """Advice on an unknown key: the nearest known one and where it belongs.

    Args:
        of_section: Whether the key has keys below it, so that only a section or a mapping can be meant.
    """
    if key in _NEVER_SHORT:
        return "for vLLM it belongs under vllm_args, for the stub engine under stub"
    word = key.lower().replace("-", "_")
    near = {path[-1]: path for path in FIELDS if path[:-1] == section and _has_keys(path) >= of_section}
    everywhere = {path[-1]: path for path in reversed(FIELDS) if _has_keys(path) >= of_section} | {
        name: path for name, path in SHORT_NAMES.items() if _has_keys(path) >= of_section
    }
    if word in everywhere and word not in near:
        return (
            f"it belongs under {_dotted(everywhere[word][:-1])}"
            if len(everywhere[word]) > 1
            else "it belongs at the top level"
        )
    if name := _nearest(word, near) or _nearest(word, distllm.names(section), likeness=0.75):
        return f"did you mean {name}?"
    if name := _nearest(word, everywhere, likeness=0.8):
        return f"did you mean {_dotted(everywhere[name])}?"
    known = ", ".join([path[-1] for path in FIELDS if path[:-1] == section] or distllm.names(section))
    for_vllm = "; arguments of vLLM go under vllm_args" if section in {(), _GENERATOR[:1], _GENERATOR} else ""
    return f"known here: {known}{for_vllm}"


def nearest_variable(name: str) -> str:
    """Advice on an unknown environment variable."""
    known = {variable.removeprefix(ENVIRONMENT_PREFIX): variable for variable in ENVIRONMENT}
    found = _nearest(name.removeprefix(ENVIRONMENT_PREFIX), known)
    return (
        f"did you mean {known[found]}?"
        if found
        else "unset it; `batchfleet config` shows the settings, and a variable is BATCHFLEET_SECTION_KEY"
    )


def expected(path: KeyPath) -> str:
    """What a setting takes, for people: its kind, its bounds, its default."""
    field = FIELDS[path]
    of_mappings = dict in (get_origin(part) for part in get_args(field.annotation))
    kinds = (
        "a list of mappings" if of_mappings else " or ".join(_KIND_NAMES.get(kind, "a text") for kind in KINDS[path])
    )
    if get_origin(field.annotation) is Literal:
        kinds = f"one of {', '.join(get_args(field.annotation))}"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, float | int):
        default = number_text(default)
    return kinds + _bounds(field.metadata) + (f" (default {default})" if default else "")


_KIND_NAMES: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list of texts",
    dict: "a mapping",
}


def _bounds(metadata: Iterable[object]) -> str:
    bounds: list[tuple[str, object]] = []
    for bound in metadata:
        bounds += [("at least", bound.ge)] if isinstance(bound, Ge) else []
        bounds += [("more than", bound.gt)] if isinstance(bound, Gt) else []
        bounds += [("at most", bound.le)] if isinstance(bound, Le) else []
    words = [f"{words} {number_text(limit)}" for words, limit in bounds if isinstance(limit, int | float)]
    return f", {' and '.join(words)}" if words else ""


def _has_keys(path: KeyPath) -> bool:
    return path in SECTIONS or path in MAPPINGS


def _nearest(word: str, known: Iterable[str], likeness: float = 0.65) -> str | None:
    # Very long words are no typing errors, and comparing them takes long.
    return next(iter(difflib.get_close_matches(word[:80], list(known), n=1, cutoff=likeness)), None)


def _dotted(path: KeyPath) -> str:
    return ".".join(path)
