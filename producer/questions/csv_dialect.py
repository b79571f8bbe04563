"""The beginning of a table as text -> how it is written: delimiter and quotes, found where there is no doubt."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wire.errors import UsageError

DELIMITERS = (",", ";", "\t", "|")
"""Those that are found by themselves. Where the comma is the decimal mark, spreadsheets write semicolons."""

Quoting = Literal["auto", "csv", "none"]

UTF8_MARK = b"\xef\xbb\xbf"
_HEADER_BYTES = 16 * 1024
_QUOTE_IN_QUOTES = re.compile(r'(?:^|\t)(?:"[^\t]*""|""(?=\t|\r?\n))')
"""Two quotes that stand for one, or for an empty cell."""
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CsvStyle:
    """What the user says of tables as text.

    Attributes:
        delimiter: One character; None to find it.
        quoting: `csv` takes quotes around a cell for enclosing it, `none` takes them for text; `auto` is `csv`, except
            that between tabs it looks which of both it is.
    """

    delimiter: str | None = None
    quoting: Quoting = "auto"


FOUND_BY_ITSELF = CsvStyle()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written.

    Attributes:
        delimiter: One character.
        quoting: `csv` or `none`; `auto` if no cell began with a quote as far as was looked.
        has_separator_line: Whether its first line is Excel's `sep=;`, and the header is the second.
    """

    delimiter: str = ","
    quoting: Quoting = "csv"
    has_separator_line: bool = False


COMMAS = Dialect()


def find_dialect(sample: bytes, path: Path, style: CsvStyle, *, tabs: bool, names: Collection[str]) -> Dialect:
    """Look at the first bytes of a file, the more of them the better.

    Args:
        path: The file, for errors.
        tabs: Its name says that tabs separate its cells.
        names: Columns that are looked for: of several delimiters that occur, the one that finds such a column is meant.

    Raises:
        UsageError: Nobody can tell whether its quotes are text.
    """
    text = _text(sample[:_HEADER_BYTES])
    separator = _SEPARATOR_LINE.match(text)
    delimiter = style.delimiter or (separator[1] if separator else "\t" if tabs else _delimiter(text, names))
    quoting = style.quoting
    if quoting == "auto":
        quoting = _quoting(_text(sample), path) if delimiter == "\t" else "csv"
    return Dialect(delimiter, quoting, bool(separator))


def begins_with_quote(line: str) -> bool:
    """Whether a cell of a line between tabs does."""
    return '"' in line and (line.startswith('"') or '\t"' in line)


def doubtful_quote(path: Path, line: int) -> UsageError:
    """What to say of a cell between tabs that begins with a quote, without knowing what quotes mean in the file."""
    return UsageError(
        f"{path}:{line}: are the quotes around this cell part of its text? Give --quoting none if they are, and "
        "--quoting csv if they enclose it"
    )


def _delimiter(text: str, names: Collection[str]) -> str:
    headers = {mark: _first_row(text, mark) for mark in DELIMITERS}
    found = [mark for mark, cells in headers.items() if len(cells) > 1]
    fitting = [mark for mark in found if not headers[mark].isdisjoint(names)]
    return next(iter([*fitting, *found]), ",")


def _first_row(text: str, delimiter: str) -> set[str]:
    try:
        return {cell.strip() for cell in next(csv.reader(_lines(text), delimiter=delimiter), [])}
    except csv.Error:
        return set()


def _text(sample: bytes) -> str:
    return sample.removeprefix(UTF8_MARK).decode("utf-8", "surrogateescape")


def _lines(text: str) -> list[str]:
    """As a file's readline would give them."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _quoting(text: str, path: Path) -> Quoting:
    """What quotes mean between tabs.

    What needs none has none if they enclose cells; what breaks their rules is text.
    """
    # The last line may be cut off.
    lines = _lines(text[: text.rfind("\n") + 1])
    if _SEPARATOR_LINE.match(text):
        lines[0] = "\n"
    quoted = next((number for number, line in enumerate(lines) if begins_with_quote(line)), None)
    if quoted is None:
        return "auto"
    try:
        cells = [cell for row in csv.reader(lines, delimiter="\t", strict=True) for cell in row]
    except csv.Error as error:
        if "expected after" in str(error):
            return "none"
        cells = []
    was_needed = any(set("\t\r\n").intersection(cell) for cell in cells) or any(map(_QUOTE_IN_QUOTES.search, lines))
    is_header = quoted == bool(_SEPARATOR_LINE.match(text))
    if is_header or was_needed:
        return "csv"
    raise doubtful_quote(path, quoted + 1)
