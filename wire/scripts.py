"""The Lua scripts of the fleet. Each lies beside the module that runs it, and names the keys and arguments it takes."""

from __future__ import annotations

from importlib.resources import files


def load_script(package: str, name: str) -> str:
    """The text of `NAME.lua` in a package of ours, such as `batcher.maintenance`."""
    return files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8")
