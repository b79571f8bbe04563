"""Makes a table fit a terminal, and never cuts a number. Pure.

Names are shortened in their middle, headings broken, columns left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from os.path import commonprefix

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

GAP, NARROW_GAP = 3, 2
ROOMY_NAME, SHORTEST_NAME = 24, 12
ELLIPSIS = "…"
_GLUE = "\x00"


class Kind(Enum):
    """What may be done to a column's cells to make it narrower."""

    NUMBER = "nothing"
    NAME = "shorten them in the middle"
    WORDS = "wrap them"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        heading: Words; one to a line where the terminal is narrow.
        drop: Where there is no room, the column with the highest goes first; None for never.
        styles: Of the cells; empty for none.
    """

    heading: str
    cells: tuple[str, ...]
    kind: Kind = Kind.NUMBER
    drop: int | None = None
    styles: tuple[str, ...] = ()

    @property
    def natural(self) -> int:
        """Its width if nothing is done to it."""
        return max(self._of_heading, *map(cell_len, self.cells), 0)

    def least(self, shortest_name: int) -> int:
        """The narrowest that it can be made."""
        if self.kind is Kind.NAME:
            return min(self.natural, max(self._of_heading, shortest_name))
        if self.kind is Kind.WORDS:
            return max(self._of_heading, *(cell_len(word) for cell in self.cells for word in _glued(cell).split()), 0)
        return self.natural

    @property
    def _of_heading(self) -> int:
        return max(map(cell_len, self.heading.split("\n")))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table that fits.

    Attributes:
        columns: With cells and headings as they are to be shown.
        widths: Of these.
        gap: Blanks between two columns.
        dropped: Headings of the columns for which there is no room.
    """

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    gap: int
    dropped: tuple[str, ...] = ()


def fit(columns: Sequence[Column], width: int | None) -> Fitted:
    """The most of a table that `width` columns of a terminal hold; all of it for None.

    Only below the width of the columns that are never dropped, the result is wider than asked for.
    """
    if width is None or _width(columns, GAP, ROOMY_NAME) <= width:
        return _shared_out(columns, width, GAP, ROOMY_NAME)
    kept = [replace(column, heading=column.heading.replace(" ", "\n")) for column in columns]
    dropped: list[str] = []
    while _width(kept, NARROW_GAP, SHORTEST_NAME) > width and (last := max(kept, key=_dropped_first)).drop is not None:
        kept.remove(last)
        dropped.append(last.heading.replace("\n", " "))
    fitted = _shared_out(kept, width, NARROW_GAP, SHORTEST_NAME)
    return replace(fitted, dropped=tuple(column.heading for column in columns if column.heading in dropped))


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` characters, the middle of long ones left out.

    Names which differ still differ, wherever that can be had.
    """
    found = _most_distinct(names, width)
    if len(set(found)) == len(set(names)):
        return found
    # They differ in the middle: leave out what all of them begin with as well, up to where a word ends.
    shared = max(commonprefix(names).rfind(end) for end in "/-_") + 1  # noqa: RUF071 (names of models need not be paths)
    return max(
        found, _most_distinct([ELLIPSIS + name[shared:] for name in names], width), key=lambda shown: len(set(shown))
    )


def _most_distinct(names: Sequence[str], width: int) -> list[str]:
    room = width - len(ELLIPSIS)
    heads = sorted(range(room + 1), key=lambda head: abs(head - room // 2))
    return max(
        ([_without_middle(name, head, width) for name in names] for head in heads), key=lambda shown: len(set(shown))
    )


def _without_middle(name: str, head: int, width: int) -> str:
    if len(name) <= width:
        return name
    tail = width - len(ELLIPSIS) - head
    return f"{name[:head]}{ELLIPSIS}{name[len(name) - tail :]}"


def _dropped_first(column: Column) -> int:
    return -1 if column.drop is None else column.drop


def _width(columns: Sequence[Column], gap: int, shortest_name: int) -> int:
    return sum(column.least(shortest_name) for column in columns) + gap * (len(columns) - 1)


def _shared_out(columns: Sequence[Column], width: int | None, gap: int, shortest_name: int) -> Fitted:
    """Take what is too much from the widest names, then from what can be wrapped."""
    widths = [column.natural for column in columns]
    least = [column.least(shortest_name) for column in columns]
    room = None if width is None else width - gap * (len(columns) - 1)
    while room is not None and sum(widths) > room:
        spare = [number for number in range(len(columns)) if widths[number] > least[number]]
        if not spare:
            break
        # A name loses its middle before words are broken over lines.
        widths[max(spare, key=lambda number: (columns[number].kind is Kind.NAME, widths[number]))] -= 1
    return Fitted(tuple(_made(column, wide) for column, wide in zip(columns, widths, strict=True)), tuple(widths), gap)


def _made(column: Column, width: int) -> Column:
    match column.kind:
        case Kind.NAME:
            return replace(column, cells=tuple(shortened(column.cells, width)))
        case Kind.WORDS:
            return replace(column, cells=tuple(_wrapped(cell, width) for cell in column.cells))
        case Kind.NUMBER:
            return column


def _wrapped(cell: str, width: int) -> str:
    lines = textwrap.wrap(_glued(cell), max(width, 1), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_GLUE, " ")


def _glued(cell: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=(?:s|min|h|days?)\b)", _GLUE, cell)


def columns_of(headings: Sequence[tuple[str, Kind, int | None]], rows: Sequence[tuple[str, ...]]) -> list[Column]:
    """Nothing for no rows."""
    return [
        Column(heading, cells, kind, drop)
        for (heading, kind, drop), cells in zip(headings, zip(*rows, strict=True), strict=bool(rows))
    ]


def rich_table(fitted: Fitted) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, fitted.gap, 0, 0), header_style="bold")
    for column, width in zip(fitted.columns, fitted.widths, strict=True):
        # Folded, where not even the columns that always stay have room: a number that was cut would be another one.
        table.add_column(
            Text(column.heading),
            justify="right" if column.kind is Kind.NUMBER else "left",
            overflow="fold",
            width=width,
        )
    for row in zip(*(_cells(column) for column in fitted.columns), strict=True):
        table.add_row(*row)
    return table


def _cells(column: Column) -> list[Text]:
    return [
        Text(cell, style=style)
        for cell, style in zip(column.cells, column.styles or [""] * len(column.cells), strict=True)
    ]
