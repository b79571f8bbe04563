"""Where tests live: with folders of their own, out of sight of what the user has set or has running."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

KEPT = ("BATCHFLEET_REDIS_SERVER", "BATCHFLEET_GPUS")
"""Of our variables, those that say what this machine has; all others say what a user wants of a fleet."""
_TEMPORARY = "PYTEST_DEBUG_TEMPROOT"


def isolate(environ: MutableMapping[str, str]) -> None:
    """Give this process, and all that it starts, a home and a folder for temporary files that end with it.

    Caches stay the user's: they hold packages and models, and no fleet. So does pytest's folder for what a failed test
    leaves.
    """
    cache = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/tmp", ".cache"))  # noqa: S108 (no secret)
    # What a process of xdist inherits is the home of its parent; side by side, paths stay short enough for sockets.
    home = Path(tempfile.mkdtemp(prefix="bf-", dir=environ.setdefault(_TEMPORARY, tempfile.gettempdir())))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "tmp").mkdir()
    environ.setdefault("DOCKER_CONFIG", str(Path(environ.get("HOME") or home, ".docker")))
    environ.update({"HOME": str(home), "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": str(cache)})
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        environ.pop(name, None)
    for name in [name for name in environ if name.startswith("BATCHFLEET_") and name not in KEPT]:
        del environ[name]
    tempfile.tempdir = None


def shared_cache() -> Path:
    """A folder for what takes long to make and is the same for all test runs of this user."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "batchfleet-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
