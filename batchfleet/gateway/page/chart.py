"""One line of a chart, as SVG wants it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

WIDTH, HEIGHT, MARGIN = 120, 60, 2
"""Of the drawing, in its own units; it is stretched to whatever room there is. `MARGIN`: above and below the line."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a time, in seconds on any clock; None where nobody knows."""

    at_s: float
    value: float | None


def means(points: Sequence[Point], now_s: float, span_s: float) -> list[float | None]:
    """The mean of each of `WIDTH` equal parts of the last `span_s`, oldest first; None for a part without a value."""
    parts: list[list[float]] = [[] for _ in range(WIDTH)]
    for point in points:
        part = int((point.at_s - (now_s - span_s)) / span_s * WIDTH)
        if point.value is not None and point.at_s - (now_s - span_s) >= 0 and part <= WIDTH:
            parts[min(part, WIDTH - 1)].append(point.value)
    return [sum(part) / len(part) if part else None for part in parts]


def path(values: Sequence[float | None], top: float) -> str:
    """The `d` of a path through the values, broken where there is none; `top`: the value at the upper edge."""
    pieces = []
    for is_gap, numbered in groupby(enumerate(values), key=lambda item: item[1] is None):
        if not is_gap:
            spots = [
                f"{number} {MARGIN + (1 - (value or 0.0) / top) * (HEIGHT - 2 * MARGIN):.1f}"
                for number, value in numbered
            ]
            # The second half of a step: a lone spot would be no line.
            pieces.append("M" + "L".join(spots) + "h1")
    return "".join(pieces)


def round_top(highest: float) -> float:
    """The next of 1, 2, 5, 10, 20 ... that is no lower: what stands at the upper edge."""
    if highest <= 0:
        return 1.0
    step = 1e-3
    while step < highest:
        for factor in (1, 2, 5):
            if step * factor >= highest:
                return step * factor
        step *= 10
    return step
