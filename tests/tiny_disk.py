"""A disk that is soon full, for one command: a small tmpfs in a mount namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def on_tiny_disk(folder: Path, size: str, command: list[str]) -> list[str]:
    """The command that runs `command` with a disk of `size` (tmpfs's words, such as `512k`) at `folder`, and ends it.

    Skips the test where neither root nor user namespaces may mount.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no `unshare` here")
    mounted = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
    prefix = [unshare, "--mount", "--map-root-user", "sh", "-c", mounted, "sh", size, str(folder)]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)  # noqa: S603 (our own words)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here, even in a namespace: {tried.stderr.strip()[-200:]}")
    return [*prefix, *command]
