"""From a command line to the settings that take effect."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from batchfleet.settings import setting_names
from batchfleet.settings.load import LoadedSettings, load_settings
from wire.errors import UsageError

_GENERATOR = "model.generator_settings"
_FLAGS = {"redis": "redis.url"} | {name: f"{_GENERATOR}.{name}" for name in ("model", "temperature", "max_tokens")}


def load(arguments: argparse.Namespace, instead: Mapping[str, object] | None = None, where: str = "") -> LoadedSettings:
    """Read configuration file, environment and command line.

    Args:
        instead: Settings that win over all of these, by keys as they stand in a file.
        where: What `instead` is, for errors.

    Raises:
        UsageError: One line for every problem.
    """
    path = Path(arguments.config) if arguments.config else None
    overrides = dict(_flags(arguments))
    loaded = load_settings(path, os.environ, overrides, instead or {}, where)
    model = overrides.get(f"{_GENERATOR}.model")
    if model and _boots_vllm(arguments, loaded):
        # Never only another name for what the file would load: answers carry that name.
        overrides[f"{_GENERATOR}.hf_model_id"] = model
        loaded = load_settings(path, os.environ, overrides, instead or {}, where)
    elif _needs_a_name(arguments, loaded):
        # Only here: commands that ask no server start without asyncio.
        from batchfleet.cli.only_model import only_model  # noqa: PLC0415

        key = loaded.settings.model.generator_settings.api_key
        overrides[f"{_GENERATOR}.model"] = only_model(arguments.server, key.get_secret_value() if key else None)
        loaded = load_settings(path, os.environ, overrides, instead or {}, where)
    return loaded


def _needs_a_name(arguments: argparse.Namespace, loaded: LoadedSettings) -> bool:
    """Whether a server is given, and nobody says for which of its models."""
    is_given = bool(getattr(arguments, "server", None)) and arguments.engine in {None, "openai"}
    return is_given and loaded.settings.model_name is None


def _boots_vllm(arguments: argparse.Namespace, loaded: LoadedSettings) -> bool:
    """Whether the command itself starts a worker that loads a model."""
    if "engine" not in arguments:
        return False
    return arguments.engine == "vllm" or (
        arguments.engine is None and loaded.settings.model.generator_settings.boot_local
    )


def _flags(arguments: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """Settings that flags stand for; `--set` first, as the others are more explicit."""
    for text in getattr(arguments, "settings", []):
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"--set {text}: write it as KEY=VALUE")
        if any(key.rpartition(".")[2] == secret[-1] for secret in setting_names.SECRETS):
            raise UsageError(
                f"--set {key}: everybody on this machine can read a command line; set it in the configuration or the "
                "environment"
            )
        yield key, value
    for flag, key in _FLAGS.items():
        if (value := getattr(arguments, flag, None)) is not None:
            yield key, value
    if server := getattr(arguments, "server", None):
        yield from {
            f"{_GENERATOR}.server": server,
            f"{_GENERATOR}.port": "null",
            f"{_GENERATOR}.boot_local": False,
        }.items()
