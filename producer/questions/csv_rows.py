"""A CSV or TSV file -> its rows as JSON objects, in constant memory.

Python's csv module knows quoting. It does not know limits: a quote that is never closed would take in the rest of the
file. So rows are bounded here, and where the end of a row is in doubt, so is everything after it, and the file is
refused.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import orjson

from producer.questions.csv_dialect import UTF8_MARK, Dialect, begins_with_quote, doubtful_quote
from producer.questions.entries import Entry, Unreadable, too_long
from wire.errors import UsageError

_MAX_HEADER_BYTES = 1024 * 1024
_AS_TEXT = "where quotes are text, give --quoting none"


def csv_header(file: BufferedReader, path: Path, dialect: Dialect) -> tuple[str, ...]:
    """The names of the columns.

    Raises:
        UsageError: There are none, or two of one name.
    """
    if header := _Rows(file, path, dialect, _MAX_HEADER_BYTES).header:
        return header
    raise UsageError(f"{path}: there is nothing in it; a table begins with the names of its columns")


def csv_entries(file: BufferedReader, path: Path, dialect: Dialect, max_bytes: int) -> Iterator[Entry]:
    """The rows, each numbered by the line on which it begins; the header is none, and blank lines are skipped.

    Args:
        file: Stands at the beginning.
        dialect: As `csv_dialect` found it.
        max_bytes: A file with a longer row is refused.

    Raises:
        UsageError: The header, or a row without end.
    """
    rows = _Rows(file, path, dialect, max_bytes)
    header = rows.header
    for line, cells in rows.rest():
        if isinstance(cells, Unreadable):
            yield line, cells
        elif len(cells) != len(header):
            yield (
                line,
                Unreadable(
                    f"it has {len(cells)} cells, and the header {len(header)} columns; a cell with a separator in it "
                    "needs quotes"
                ),
            )
        else:
            yield line, _as_json(dict(zip(header, cells, strict=True)), max_bytes)


def _as_json(row: dict[str, str], max_bytes: int) -> bytes | Unreadable:
    try:
        data = orjson.dumps(row)
    except TypeError:  # Half a character, which is what a byte that is no UTF-8 has become.
        return Unreadable("it is not UTF-8; save the file as UTF-8")
    return data if len(data) <= max_bytes else too_long(len(data), max_bytes)


class _Rows:
    """Header and rows of a file. Counts lines, and what the row that is being read has taken so far."""

    def __init__(self, file: BufferedReader, path: Path, dialect: Dialect, max_bytes: int) -> None:
        self._file = file
        self._path = path
        self._max_bytes = max_bytes
        self._line = 0
        self._taken = 0
        self._doubts_quotes = dialect.quoting == "auto"
        if file.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
            file.read(len(UTF8_MARK))
        if dialect.has_separator_line:
            file.readline()
            self._line = 1
        csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
        quotechar = None if dialect.quoting == "none" else '"'
        self._reader = csv.reader(
            self._lines(),
            delimiter=dialect.delimiter,
            quotechar=quotechar,
            quoting=csv.QUOTE_MINIMAL if quotechar else csv.QUOTE_NONE,
            strict=True,
        )
        self.header = self._read_header()

    def rest(self) -> Iterator[tuple[int, list[str] | Unreadable]]:
        while True:
            begins = self._line + 1
            self._taken = 0
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield begins, self._problem(error, begins)
            else:
                if cells:
                    yield begins, cells

    def _read_header(self) -> tuple[str, ...]:
        header = next((row for _, row in self.rest()), None)
        if header is None:
            return ()
        if isinstance(header, Unreadable):
            raise UsageError(f"{self._path}:1: {header.reason}")
        names = [name.strip() or f"column {number}" for number, name in enumerate(header, 1)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"{self._path}: two columns are named {twice!r}; give each a name of its own")
        return tuple(names)

    def _lines(self) -> Iterator[str]:
        while line := self._file.readline(self._max_bytes + 2):
            self._line += 1
            self._taken += len(line)
            if self._taken > self._max_bytes + 2 or (len(line) == self._max_bytes + 2 and not line.endswith(b"\n")):
                raise self._endless(self._line)
            text = line.decode("utf-8", "surrogateescape")
            if self._doubts_quotes and begins_with_quote(text):
                raise doubtful_quote(self._path, self._line)
            yield text

    def _problem(self, error: csv.Error, begins: int) -> Unreadable:
        words = str(error)
        if "unexpected end of data" in words:
            raise UsageError(
                f"{self._path}:{begins}: this row has no end: a quote in it, or before it, is not closed; {_AS_TEXT}"
            )
        if "field limit" in words:
            raise self._endless(begins)
        if "expected after" in words:
            return Unreadable(
                "a quote in the middle of a cell; put the whole cell in quotes and write quotes in it twice; "
                f"{_AS_TEXT}"
            )
        if "new-line character" in words:
            return Unreadable("it has a CR without LF; save the file with ordinary line ends")
        return Unreadable(f"it is not CSV ({words})")

    def _endless(self, line: int) -> UsageError:
        return UsageError(
            f"{self._path}:{line}: this row has no end within {self._max_bytes} bytes: a quote in it, or before it, is "
            "not closed, "
            "or it is longer than limits.max_question_bytes"
        )
