"""From a command line to the settings that take effect."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from batchfleet.settings.load import LoadedSettings, load_settings


def load(arguments: argparse.Namespace, instead: Mapping[str, object] | None = None, where: str = "") -> LoadedSettings:
    """Read configuration file, environment and command line.

    Args:
        instead: Settings that win over all of these, by keys as they stand in a file.
        where: What `instead` is, for errors.

    Raises:
        UsageError: One line for every problem.
    """
    overrides: dict[str, object] = {}
    if getattr(arguments, "redis", None):
        overrides["redis.url"] = arguments.redis
    if getattr(arguments, "model", None):
        overrides["model.generator_settings.model"] = arguments.model
    return load_settings(
        Path(arguments.config) if arguments.config else None, os.environ, overrides, instead or {}, where
    )
