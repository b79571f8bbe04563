"""Files that may be compressed -> their plain bytes, a piece at a time."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wire.errors import UsageError

CHUNK_BYTES = 256 * 1024

SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
"""Endings of file names that say how a file is compressed, for files that are to be written."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def without_suffix(path: Path) -> Path:
    """The name that a file has once it is unpacked."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file's plain bytes, whether it is compressed with gzip, zstd or not; its first bytes tell, not its name.

    Raises:
        UsageError: The compressed data is damaged or ends early, at whatever reading that shows; or zstd is not
            supported here.
        OSError: The disk, or the permissions.
    """
    with ExitStack() as closing:
        file: BinaryIO = closing.enter_context(path.open("rb", buffering=CHUNK_BYTES))
        start = file.read(4)
        file.seek(0)
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        if kind is not None:
            errors, unpacked = _unpacked(file, path, kind)
            file = closing.enter_context(
                io.BufferedReader(
                    _Translating(unpacked, errors, f"{path}: it is {kind}, and damaged or incomplete"), CHUNK_BYTES
                )
            )
        yield file  # type: ignore[misc]


@contextmanager
def written(path: Path, file: BinaryIO) -> Iterator[BinaryIO]:
    """A file to write plain bytes to; `file` gets them compressed as the ending of `path` says.

    Raises:
        UsageError: zstd is not supported here.
    """
    match SUFFIXES.get(path.suffix.lower()):
        case "gzip":
            # Without a name and a time in it, the same answers give the same file.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as packed:
                yield packed  # type: ignore[misc]
        case "zstd":
            packed_zstd: Any = zstd_for(path).ZstdFile(file, "wb")
            with packed_zstd:
                yield packed_zstd
        case _:
            yield file


def zstd_for(path: Path) -> Any:  # noqa: ANN401 (a module that may not be there)
    """The module that reads and writes zstd here.

    Raises:
        UsageError: There is none.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 (not in every build of Python)
        else:
            from backports import zstd  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UsageError(
            f"{path}: zstd needs the package backports.zstd: scripts/install --zstd adds it; or use gzip"
        ) from None
    return zstd


def _unpacked(file: BinaryIO, path: Path, kind: str) -> tuple[tuple[type[Exception], ...], Callable[[int], bytes]]:
    """What can go wrong while unpacking, and a function that reads up to so many plain bytes."""
    if kind == "gzip":
        return (EOFError, zlib.error, gzip.BadGzipFile), gzip.GzipFile(fileobj=file).read1
    zstd = zstd_for(path)
    return (EOFError, zstd.ZstdError), zstd.ZstdFile(file).read1


class _Translating(io.RawIOBase):
    """A stream whose errors are ours."""

    def __init__(self, read: Callable[[int], bytes], errors: tuple[type[Exception], ...], problem: str) -> None:
        self._read = read
        self._errors = errors
        self._problem = problem

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (anything that can be written to)
        try:
            piece = self._read(len(buffer))
        except self._errors as error:
            raise UsageError(
                f"{self._problem} ({error or 'it ends too early'}); fetch it again, or unpack what is left of it"
            ) from None
        buffer[: len(piece)] = piece
        return len(piece)
