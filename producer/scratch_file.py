"""Files with names that others can foresee: created fresh, and never through a link that somebody placed there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO


def open_new(path: Path) -> BinaryIO:
    """Make a file to write to; what has its name, such as what a crash has left, goes first.

    Raises:
        OSError: It cannot be made.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def write_beside(path: Path, lines: Iterable[bytes], mode: int) -> Path:
    """Write lines to a file that may then take the place of `path`; returns it, safe on disk.

    Args:
        mode: Its permissions.

    Raises:
        OSError: The disk is full, or fails; nothing is left of it.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with open_new(scratch) as file:
            file.writelines(lines)
            file.flush()
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
            os.fsync(file.fileno())
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return scratch


def sync_folder(folder: Path) -> None:
    """Make what was renamed in it survive the machine.

    Raises:
        OSError: The disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
