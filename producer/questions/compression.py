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

_PACKED_BYTES = 1024
"""Of zstd at once. Every four bytes may stand for 128 KiB, so these are at most 32 MiB."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def without_suffix(path: Path) -> Path:
    """The name that a file has once it is unpacked."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file's plain bytes, whether it is compressed with gzip, zstd or not; its first bytes tell, not its name.

    Raises:
        UsageError: The compressed data is damaged or ends early, at whatever reading that shows; or zstd is not supported here.
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
                    _Translating(unpacked, errors, f"{path}: it is {kind}, and damaged or not complete"), CHUNK_BYTES
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
            packed_zstd: Any = zstd_for(path).open(file, "wb")
            with packed_zstd:
                yield packed_zstd
        case _:
            yield file


def zstd_for(path: Path) -> Any:  # noqa: ANN401 (one of two modules, of which neither may be there)
    """What reads and writes zstd here: `open(file, mode)` and `ZstdError` are alike in both.

    Raises:
        UsageError: Nothing does.
    """
    try:
        from compression import zstd  # noqa: PLC0415 (from Python 3.14 on)
    except ImportError:
        try:
            import zstandard  # noqa: PLC0415 (an extra)
        except ImportError:
            msg = f"{path}: for zstd, the package zstandard is needed: {sys.executable} -m pip install zstandard, or use gzip"
            raise UsageError(msg) from None
        return zstandard
    return zstd


def _unpacked(file: BinaryIO, path: Path, kind: str) -> tuple[tuple[type[Exception], ...], Callable[[int], bytes]]:
    """What can go wrong while unpacking, and a function that reads up to so many plain bytes."""
    if kind == "gzip":
        return (EOFError, zlib.error, gzip.BadGzipFile), gzip.GzipFile(fileobj=file).read1
    zstd = zstd_for(path)
    if hasattr(zstd, "ZstdFile"):
        return (EOFError, zstd.ZstdError), zstd.ZstdFile(file).read
    reader: Callable[[int], bytes] = _Zstandard(file, zstd).read
    return (EOFError, zstd.ZstdError), reader


class _Zstandard:
    """What zstandard's own reader leaves out: it takes a file that ends early for one that ends."""

    def __init__(self, file: BinaryIO, zstd: Any) -> None:  # noqa: ANN401
        self._file = file
        self._new: Callable[[], Any] = zstd.ZstdDecompressor(max_window_size=2**27).decompressobj
        self._frame: Any = None
        self._plain = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._plain:
            packed = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            packed = packed or self._file.read(_PACKED_BYTES)
            if not packed:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError
                return b""
            if self._frame is None or self._frame.eof:
                self._frame = self._new()
            self._plain = memoryview(self._frame.decompress(packed))
        piece, self._plain = self._plain[:size], self._plain[size:]
        return bytes(piece)


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
            msg = f"{self._problem} ({error or 'it ends too early'}); get it again, or unpack what is left of it"
            raise UsageError(msg) from None
        buffer[: len(piece)] = piece
        return len(piece)
