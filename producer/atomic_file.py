"""Files with names that others can foresee: created fresh, and never through a link that somebody placed there."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def open_new(path: Path, mode: int = 0o666) -> BinaryIO:
    """Make a file to write to; what has its name, such as what a crash has left, goes first.

    Raises:
        OSError: It cannot be made.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, mode), "wb")


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of `path`, safe on disk, once all is written; otherwise nothing is left of it.

    Args:
        mode: Its permissions, as far as the umask allows them.

    Raises:
        OSError: The disk is full, or fails.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open_new(scratch, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


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
