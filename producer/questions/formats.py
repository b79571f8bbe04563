"""The bytes of a file of questions -> its entries, one at a time, in constant memory.

What an entry says is not looked at here. What a file is, is told by its first bytes: Parquet and Arrow have marks of
their own. Text is CSV or TSV if its name ends like that. Else `[` as the first byte that is not white space opens a
JSON array, whose elements are the entries; anything else is JSON Lines, one entry a line. Text may be compressed with
gzip or zstd.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from producer.questions import compression, parquet_and_arrow
from producer.questions.csv_dialect import COMMAS, FOUND_BY_ITSELF, UTF8_MARK, CsvStyle, Dialect, find_dialect
from producer.questions.csv_rows import csv_entries, csv_header
from producer.questions.entries import Entry, Place, too_long
from producer.questions.json_array import array_entries
from producer.questions.sources import InputFormat
from wire.errors import UsageError

_UNREADABLE_FILES = {
    b"PK\x03\x04": "it is compressed (zip), or an Excel workbook; unpack it, or save it as CSV",
    b"BZh": "it is compressed (bzip2); unpack it first",
    b"\xfd7zXZ\x00": "it is compressed (xz); unpack it first",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
}

TextKind = Literal["lines", "array", "table"]

_TABLES = {".csv": False, ".tsv": True, ".tab": True}
"""Ending of a name, or what the user says that a file is -> whether tabs separate its cells."""
_JSON = frozenset({".json", ".jsonl", ".ndjson"})


@dataclass(frozen=True, slots=True)
class Form:
    """What a file was found to be.

    Attributes:
        kind: One of those that `read_entries` tells apart.
        place: What its entries are counted in.
        columns: Of a table; None if it is none.
        dialect: Of a table as text.
    """

    kind: TextKind | parquet_and_arrow.Kind
    place: Place
    columns: tuple[str, ...] | None = None
    dialect: Dialect = COMMAS


class FileId(NamedTuple):
    """What changes when somebody writes to a file or puts another in its place."""

    size: int
    mtime_ns: int
    inode: int


def identify(path: Path) -> FileId:
    """Look at a file without opening it.

    Raises:
        UsageError: There is no such file, it cannot be looked at, or it is not a regular file (it has to be read twice,
            so a pipe will not do).
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path}: it is a directory; name the file of questions in it")
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"{path}: it is not a regular file; questions are read twice, so write them to a file first, or pipe them "
            "in and name - as the file"
        )
    return FileId(status.st_size, status.st_mtime_ns, status.st_ino)


def find_form(
    path: Path, given: InputFormat = "auto", style: CsvStyle = FOUND_BY_ITSELF, names: Collection[str] = ()
) -> Form:
    """Tell what a file is, and if it is a table, which columns it has.

    Args:
        names: Columns that are looked for.

    Raises:
        UsageError: The file cannot be read, or is of a kind that is not read here.
    """
    identify(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
        for magic, kind in parquet_and_arrow.MAGIC.items():
            if start.startswith(magic):
                return Form(kind, "row", parquet_and_arrow.arrow_columns(path, kind))
        with compression.opened(path) as plain:
            return _form_of_text(plain, path, given, style, names)
    except OSError as error:
        raise _unreadable(path, error) from None


def read_entries(
    path: Path, max_bytes: int, form: Form | None = None, columns: frozenset[str] | None = None
) -> Iterator[Entry]:
    """Read the entries of a file in order; blank lines are none.

    Memory: a few times `max_bytes`, whatever the size of the file.

    Args:
        path: A regular file; text in UTF-8, with or without byte order mark.
        max_bytes: An entry longer than this is skipped unread and given as Unreadable.
        form: What `find_form` found.
        columns: Of a Parquet or Arrow file, those that are wanted; None for all.

    Raises:
        UsageError: The file cannot be read. Raised on the first entry, or in the middle if the disk fails there or the
            file is damaged.
    """
    form = form or find_form(path)
    identify(path)
    try:
        match form.kind:
            case "parquet" | "arrow file" | "arrow stream":
                yield from parquet_and_arrow.arrow_entries(path, form.kind, columns, max_bytes)
            case _:
                with compression.opened(path) as file:
                    yield from _text_entries(file, path, form, max_bytes)
    except OSError as error:
        raise _unreadable(path, error) from None


def _text_entries(file: BufferedReader, path: Path, form: Form, max_bytes: int) -> Iterator[Entry]:
    if form.kind == "array":
        _skip_white_space(file)
        file.read(1)
        return array_entries(file, path, max_bytes)
    if form.kind == "lines":
        _skip_mark(file)
        return _lines(file, max_bytes)
    return csv_entries(file, path, form.dialect, max_bytes)


def _form_of_text(
    file: BufferedReader, path: Path, given: InputFormat, style: CsvStyle, names: Collection[str]
) -> Form:
    start = file.peek(8)[:8]
    for magic, problem in _UNREADABLE_FILES.items():
        if start.startswith(magic):
            raise UsageError(f"{path}: {problem}")
    if b"\0" in start[:2]:
        raise UsageError(f"{path}: it is UTF-16, or no text at all; save it as UTF-8")
    ending = compression.without_suffix(path).suffix.lower() if given == "auto" else f".{given}"
    if ending in _TABLES or (style.delimiter and ending not in _JSON):
        tabs = _TABLES.get(ending, False)
        dialect = find_dialect(file.peek(compression.CHUNK_BYTES), path, style, tabs=tabs, names=names)
        return Form("table", "line", csv_header(file, path, dialect), dialect)
    _skip_white_space(file)
    return Form("array", "element") if file.peek(1)[:1] == b"[" else Form("lines", "line")


def _skip_mark(file: BufferedReader) -> None:
    if file.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
        file.read(len(UTF8_MARK))


def _skip_white_space(file: BufferedReader) -> None:
    """Leave the file at its first byte that is not white space."""
    _skip_mark(file)
    while chunk := file.peek(1):
        text = chunk.lstrip()
        file.read(len(chunk) - len(text))
        if text:
            return


def _lines(file: BufferedReader, max_bytes: int) -> Iterator[Entry]:
    # Two bytes more than allowed: room for the CR and LF of a line that just fits.
    room = max_bytes + 2
    for number in count(1):
        start = file.readline(room)
        if not start:
            return
        line = start.rstrip(b"\r\n")
        if len(line) > max_bytes or (len(start) == room and not start.endswith(b"\n")):
            size, piece = len(start), start
            while piece and not piece.endswith(b"\n"):
                piece = file.readline(compression.CHUNK_BYTES)
                size += len(piece)
            yield number, too_long(size, max_bytes)
        elif line and not line.isspace():
            yield number, line


def _unreadable(path: Path, error: OSError | ValueError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{path}: there is no such file")
    if isinstance(error, PermissionError):
        return UsageError(f"{path}: it may not be read by this user; change its permissions")
    return UsageError(f"{path}: it cannot be read ({getattr(error, 'strerror', None) or error})")
