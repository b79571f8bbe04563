"""The other end of `rig.Helper`: get ready, wait for the word, do one thing, say how it went."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from fleet.settings.loading import load_settings
from fleet.settings.schema import Settings


def load(config: str, redis_url: str | None = None) -> Settings:
    return load_settings(Path(config), {}, {"redis.url": redis_url}).settings


def wait_for_go() -> None:
    """Say that we are ready, and wait. Nobody there any more: end."""
    print(json.dumps({"ready": True}), flush=True)
    if not sys.stdin.readline():
        sys.exit(3)


def tell(result: Mapping[str, object]) -> None:
    """Say how it went, and stay until that was heard: memory and CPU time of a process that ended cannot be read."""
    print(json.dumps(result), flush=True)
    sys.stdin.readline()
