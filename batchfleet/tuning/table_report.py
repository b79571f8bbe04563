"""What a benchmark says: tables for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

Cell = str | int | float


class Chart(Protocol):
    """What a benchmark draws."""

    def as_svg(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns. Units stand in the names of the columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def as_markdown(self) -> str:
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"{self.title}:", "", lines[0], rule, *lines[1:]])

    def as_dicts(self) -> list[dict[str, Cell]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one benchmark.

    Attributes:
        parameters: What it was run with.
        tables: For people.
        notes: What a reader should know, a line each.
        measurements: Every single measurement, in the order in which they were made.
        chart: What is best drawn.
    """

    name: str
    parameters: dict[str, Any]
    tables: list[Table]
    notes: list[str] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    chart: Chart | None = None

    def as_dict(self, machine: dict[str, str]) -> dict[str, Any]:
        tables = {table.title: table.as_dicts() for table in self.tables}
        return {
            "bench": self.name, "machine": machine, "parameters": self.parameters,
            "tables": tables, "notes": self.notes, "measurements": self.measurements,
        }  # fmt: skip

    def as_text(self, machine: str) -> str:
        settings = ", ".join(f"{name} {_shown(value)}" for name, value in self.parameters.items())
        return "\n\n".join(
            [f"bench {self.name}: {settings}", machine, *(table.as_markdown() for table in self.tables), *self.notes]
        )


def middle(values: Sequence[float], digits: int = 3) -> float:
    """The median, rounded; whole numbers stay whole for `digits` = 0."""
    found = round(median(values), digits)
    return int(found) if digits == 0 else found


def from_to(values: Sequence[float], digits: int = 0) -> str:
    """The range of several measurements of the same thing."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def _shown(cell: object) -> str:
    if isinstance(cell, list | tuple):
        return " ".join(map(str, cell))
    return f"{cell:,}".replace(",", " ") if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
