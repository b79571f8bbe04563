"""The Lua scripts of the fleet. Each lies beside the module that runs it, and names the keys and arguments it takes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import redis
from redis.commands.core import Script


def load_script(package: str, name: str) -> str:
    """The text of `NAME.lua` in a package of ours, such as `batcher.maintenance`."""
    return files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8")


Call = tuple[Sequence[str], Sequence[str | int | float | bytes]]
"""Keys and arguments."""


def call_each(client: redis.Redis, script: Script, calls: Sequence[Call]) -> list[Any]:
    """Run a script several times in one round trip; one that may safely run twice with the same arguments.

    Returns:
        What each call returned, in their order.
    """

    def call_once() -> list[Any]:
        with client.pipeline(transaction=False) as pipe:
            for keys, args in calls:
                pipe.evalsha(script.sha, len(keys), *keys, *args)
            return list(pipe.execute())

    try:
        return call_once()
    except redis.exceptions.NoScriptError:
        # Redis was restarted. Asking it every time, as redis-py does in a pipeline, would be a round trip more.
        client.script_load(script.script)
        return call_once()
