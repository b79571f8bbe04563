"""`file:` addresses, under the folders that the configuration allows and nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpu_worker.images.errors import ImageError, ImagesTooLargeError


def path_of(address: str) -> str:
    """The path that a `file:` address names.

    Raises:
        ImageError: It names none on this host.
    """
    parts = urlsplit(address)
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
        raise ImageError("write a file as file:///PATH, with ? and # in it as %3F and %23; no host, no query")
    if not path.startswith("/") or "\0" in path:
        raise ImageError("a file's path must begin with / and hold no NUL: file:///PATH")
    return path


def read_file(address: str, folders: Sequence[str], max_bytes: int) -> bytes:
    """The file's bytes, at most `max_bytes`.

    Links count as what they lead to. Once that is found to be allowed it is opened step by step without following any
    link, so nobody can put one there in between.

    Raises:
        ImageError: It is not allowed, is not there, or is too large.
    """
    path = Path(os.path.realpath(path_of(address)))
    for folder in map(os.path.realpath, folders):
        if path.is_relative_to(folder):
            return _read(folder, path.relative_to(folder).parts, max_bytes)
    raise ImageError(
        "it is under none of the folders in images.folders; allow its folder there, in the worker's configuration"
    )


def _read(folder: str, steps: Sequence[str], max_bytes: int) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        opened = os.open(folder, flags)
        for step in steps:
            above = opened
            try:
                opened = os.open(step, flags, dir_fd=above)
            finally:
                os.close(above)
        try:
            return _bytes(opened, max_bytes)
        finally:
            os.close(opened)
    except OSError as error:
        raise ImageError(f"the worker cannot read the file: {os.strerror(error.errno or 0)}") from None


def _bytes(descriptor: int, max_bytes: int) -> bytes:
    # A pipe or a device could give bytes without end, or none for ever.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ImageError("it is no regular file")
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ImagesTooLargeError(max_bytes)
    return data
