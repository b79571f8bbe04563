"""The bytes of a file of questions -> its entries, one at a time, in constant memory. What an entry says is not looked at here.

Two formats, told apart by the first byte that is not white space: `[` opens a JSON array, whose elements are the entries; anything else is
JSON Lines, one entry a line.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from producer.arrays import array_entries
from producer.entries import Entry, too_long
from wire.errors import UsageError

_CHUNK_BYTES = 256 * 1024
_UTF8_MARK = b"\xef\xbb\xbf"
_UNREADABLE_FILES = {
    b"\x1f\x8b": "it is compressed (gzip); unpack it first",
    b"PK\x03\x04": "it is compressed (zip); unpack it first",
    b"BZh": "it is compressed (bzip2); unpack it first",
    b"\xfd7zXZ\x00": "it is compressed (xz); unpack it first",
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd); unpack it first",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
}

Place = Literal["line", "element"]
"""What the entries of a file are counted in: lines of JSON Lines, elements of an array. Both from 1."""


class FileId(NamedTuple):
    """What changes when somebody writes to a file or puts another in its place."""

    size: int
    mtime_ns: int
    inode: int


def identify(path: Path) -> FileId:
    """Look at a file without opening it.

    Raises:
        UsageError: There is no such file, it cannot be looked at, or it is no regular file (it has to be read twice, so a pipe will not do).
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        msg = f"{path}: it is a directory; name the file of questions in it"
        raise UsageError(msg)
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: it is not a regular file; questions are read twice, so write them to a file first"
        raise UsageError(msg)
    return FileId(status.st_size, status.st_mtime_ns, status.st_ino)


def find_place(path: Path) -> Place:
    """Tell which of the two formats a file has.

    Raises:
        UsageError: The file cannot be read, or is compressed.
    """
    identify(path)
    try:
        with path.open("rb") as file:
            return _open_format(file, path)
    except OSError as error:
        raise _unreadable(path, error) from None


def read_entries(path: Path, max_bytes: int) -> Iterator[Entry]:
    """Read the entries of a file in order; blank lines are none. Memory: a few times `max_bytes`, whatever the size of the file.

    Args:
        path: A regular file in UTF-8, with or without byte order mark.
        max_bytes: An entry longer than this is skipped unread and given as Unreadable.

    Raises:
        UsageError: The file cannot be read, or is compressed. Raised on the first entry, or in the middle if the disk fails there.
    """
    identify(path)
    try:
        with path.open("rb", buffering=_CHUNK_BYTES) as file:
            if _open_format(file, path) == "element":
                yield from array_entries(file, max_bytes)
            else:
                yield from _lines(file, max_bytes)
    except OSError as error:
        raise _unreadable(path, error) from None


def _open_format(file: BinaryIO, path: Path) -> Place:
    """Leave the file at its first line, or behind the bracket that opens the array."""
    start = file.read(8)
    for magic, problem in _UNREADABLE_FILES.items():
        if start.startswith(magic):
            msg = f"{path}: {problem}"
            raise UsageError(msg)
    text_at = len(_UTF8_MARK) if start.startswith(_UTF8_MARK) else 0
    file.seek(text_at)
    while chunk := file.read(_CHUNK_BYTES):
        if text := chunk.lstrip():
            if text.startswith(b"["):
                file.seek(1 - len(text), 1)
                return "element"
            break
    file.seek(text_at)
    return "line"


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[Entry]:
    # Two bytes more than allowed: room for the CR and LF of a line that just fits.
    room = max_bytes + 2
    for number in count(1):
        start = file.readline(room)
        if not start:
            return
        line = start.rstrip(b"\r\n")
        if len(line) > max_bytes or (len(start) == room and not start.endswith(b"\n")):
            yield number, too_long(len(start) + _skip_line(file, start), max_bytes)
        elif line and not line.isspace():
            yield number, line


def _skip_line(file: BinaryIO, start: bytes) -> int:
    """Go to the end of a line whose start has been read; returns the number of bytes passed over."""
    skipped = 0
    piece = start
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(_CHUNK_BYTES)
        skipped += len(piece)
    return skipped


def _unreadable(path: Path, error: OSError | ValueError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{path}: there is no such file")
    if isinstance(error, PermissionError):
        return UsageError(f"{path}: it may not be read by this user; change its permissions")
    return UsageError(f"{path}: it cannot be read ({getattr(error, 'strerror', None) or error})")
