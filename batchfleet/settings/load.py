"""Makes one `Settings` from a file, the environment and the command line.

If anything is wrong with them, one error names all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchfleet.settings import distllm, setting_names
from batchfleet.settings.blocks import Block, Entry, Raw, Where, as_block, shown
from batchfleet.settings.layers import GivenValue, Layer, Problem, dotted, kind_of
from batchfleet.settings.schema import Settings
from batchfleet.settings.setting_names import KeyPath
from batchfleet.settings.validate import checked
from batchfleet.settings.yaml_lines import MAX_TEXT_BYTES, parse
from wire.errors import UsageError

COMMAND_LINE = Where("command line")


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """What takes effect, and what its author should be told, one line each."""

    settings: Settings
    warnings: tuple[str, ...]


def load_settings(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    instead: Mapping[str, object] | None = None,
    where: str = "",
) -> LoadedSettings:
    """Read all sources. Each wins over those before it: defaults, file, environment, command line.

    `vllm_args` of several sources are joined key by key, at their first level; of everything else the last one given
    counts, lists included.

    Args:
        path: The YAML file; None for none.
        environ: Variables `BATCHFLEET_...`; others are ignored, and so is an empty value (compose files pass
            `${UNSET:-}` on like that).
        overrides: Dotted keys, short or full as in a file, to values; text is read as in the environment, None means
            not given.
        instead: The same, stronger still, from wherever `where` says; text stands for itself, None means the default.

    Raises:
        UsageError: One line for every problem: where, which key, what is wrong; what to do.
    """
    layers = [] if path is None else [_from_file(path)]
    layers += [_from_environment(environ), _from_command_line(overrides), _from_mapping(instead or {}, Where(where))]
    given = {key: value for layer in layers for key, value in layer.values.items()}
    given |= _understood(given)
    settings = checked(given, [problem for layer in layers for problem in layer.problems])
    warnings = [warning for layer in layers for warning in layer.warnings]
    return LoadedSettings(settings, (*warnings, *_doubts(settings, given)))


def _understood(given: Mapping[KeyPath, GivenValue]) -> dict[KeyPath, GivenValue]:
    """What goes without saying: who names a server and no model to load means that server."""
    section = ("model", "generator_settings")
    server, boot_local, hf_model_id = (given.get((*section, name)) for name in ("server", "boot_local", "hf_model_id"))
    if (
        server is None
        or server.value is None
        or boot_local is not None
        or (hf_model_id is not None and hf_model_id.value is not None)
    ):
        return {}
    return {(*section, "boot_local"): GivenValue(value=False, where=server.where)}


def _from_file(path: Path) -> Layer:
    parsed = parse(_text_of(path), str(path))
    layer = Layer(warnings=list(parsed.warnings))
    if isinstance(parsed.value, Block):
        layer.put_block((), parsed.value)
    elif parsed.value is not None:
        raise UsageError(
            f"{path}:1: the file is {kind_of(parsed.value)}; settings are lines of the form KEY: VALUE, with a space "
            "after the colon"
        )
    if layer.ignored:
        layer.warnings.append(f"{path}:{min(layer.ignored.values()).line}: {distllm.warning(layer.ignored)}")
    return layer


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror or error}; check the name and its permissions"
        ) from None
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(
            f"{path}: is larger than {MAX_TEXT_BYTES} bytes; settings never are, so check that this is the right file"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def _from_environment(environ: Mapping[str, str]) -> Layer:
    layer = Layer()
    ours = {name for name in environ if name.startswith(setting_names.ENVIRONMENT_PREFIX)}
    for name in sorted(ours - setting_names.RESERVED_VARIABLES - setting_names.ENVIRONMENT.keys()):
        layer.problems.append(
            Problem(Where("environment"), shown(name), f"unknown variable; {setting_names.nearest_variable(name)}")
        )
    # In the table's order, short names first: a short and a long one for the same setting give a warning, and the long
    # one counts.
    for name, path in setting_names.ENVIRONMENT.items():
        if text := environ.get(name):
            layer.put(path, Entry(path[-1], Where(f"environment: {name}"), Raw(text)))
    return layer


def _from_command_line(overrides: Mapping[str, object]) -> Layer:
    given = {
        key: Raw(value) if isinstance(value, str) else value for key, value in overrides.items() if value is not None
    }
    return _from_mapping(given, COMMAND_LINE)


def _from_mapping(overrides: Mapping[str, object], where: Where) -> Layer:
    layer = Layer()
    for key, given in overrides.items():
        value: object = as_block(given, where) if isinstance(given, dict) else given
        # A dotted key is a block in a block in a block, so that it means what the same nesting means in a file.
        for name in reversed(key.split(".")):
            value = Block((Entry(name, where, value),))
        if isinstance(value, Block):
            layer.put_block((), value)
    return layer


def _doubts(settings: Settings, given: Mapping[KeyPath, GivenValue]) -> Iterator[str]:
    """What is allowed and probably not meant."""
    path = ("model", "generator_settings", "server")
    generator = settings.model.generator_settings
    if generator.server is not None and generator.boot_local:
        yield (
            f"{given[path].where}: {dotted(path)}: has no effect while boot_local is true, except with the openai "
            "engine; set boot_local: false"
        )
