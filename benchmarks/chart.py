"""Charts as SVG: a drawing is a page of text, and needs no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 820, 440
LEFT, RIGHT, TOP, BOTTOM = 90, 200, 50, 60
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#edae49", "#6b4e9b", "#5f6c7b", "#00798c", "#a05c2c")
"""Told apart on screens and in print; lines differ in their marks' labels too."""
FONT = "font-family='sans-serif' font-size='13'"


class Chart(Protocol):
    """Anything that can draw itself."""

    def as_svg(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar for each name, in the order given, with its value beside it."""

    title: str
    unit: str
    bars: Sequence[tuple[str, float]]
    highlighted: str = ""
    """Bars whose names begin with this are drawn in another colour."""

    def as_svg(self) -> str:
        row = 26
        longest = max((value for _, value in self.bars), default=0) or 1
        left, width = 210, WIDTH - 210 - 100
        parts = [_text(16, 26, f"{self.title} ({self.unit})", "font-weight='bold'")]
        for number, (name, value) in enumerate(self.bars):
            y = TOP + number * row
            colour = COLOURS[0] if self.highlighted and name.startswith(self.highlighted) else COLOURS[5]
            length = max(1.0, width * value / longest)
            parts.append(_text(left - 8, y + 14, name, "text-anchor='end'"))
            parts.append(f"<rect x='{left}' y='{y}' width='{length:.1f}' height='{row - 7}' fill='{colour}'/>")
            parts.append(_text(left + length + 6, y + 14, _number(value)))
        return _page(WIDTH, TOP + len(self.bars) * row + 16, parts)


@dataclass(frozen=True, slots=True)
class Lines:
    """Several lines over one x axis.

    Attributes:
        lines: By name, points (x, y) in the order of x.
        log_x: Doublings are equally far apart. All x must be above 0.
    """

    title: str
    x_axis: str
    y_axis: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False

    def as_svg(self) -> str:
        points = [point for line in self.lines.values() for point in line] or [(0.0, 0.0)]
        xs, ys = [self._x(x) for x, _ in points], [y for _, y in points]
        x_low, x_high = min(xs), max(*xs, min(xs) + 1e-09)
        ticks = _ticks(max(ys))
        y_high = ticks[-1]
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

        def place(x: float, y: float) -> tuple[float, float]:
            return LEFT + (self._x(x) - x_low) / (x_high - x_low) * (right - LEFT), bottom - y / y_high * (bottom - TOP)

        parts = [_text(16, 26, self.title, "font-weight='bold'")]
        parts += [
            _text((LEFT + right) / 2, HEIGHT - 14, self.x_axis, "text-anchor='middle'"),
            _text(16, TOP - 8, self.y_axis),
        ]
        for tick in ticks:
            _, y = place(points[0][0], tick)
            parts.append(f"<path d='M{LEFT} {y:.1f}H{right}' stroke='#ddd'/>")
            parts.append(_text(LEFT - 8, y + 4, _number(tick), "text-anchor='end'"))
        for tick in self._x_ticks([x for x, _ in points]):
            x, _ = place(tick, 0)
            parts.append(f"<path d='M{x:.1f} {bottom}v5' stroke='#333'/>")
            parts.append(_text(x, bottom + 20, _number(tick), "text-anchor='middle'"))
        parts.append(f"<path d='M{LEFT} {TOP}V{bottom}H{right}' stroke='#333' fill='none'/>")
        for number, (name, line) in enumerate(self.lines.items()):
            parts += _line(
                name, [place(*point) for point in line], COLOURS[number % len(COLOURS)], TOP + 18 * number, right + 12
            )
        return _page(WIDTH, HEIGHT, parts)

    def _x(self, x: float) -> float:
        return math.log2(x) if self.log_x else x

    def _x_ticks(self, xs: Sequence[float]) -> Sequence[float]:
        if self.log_x:
            return sorted(set(xs))
        return [tick for tick in _ticks(max(xs)) if min(xs) <= tick <= max(xs)]


MOST_MARKS = 24
"""A line of more points has no marks: they would hide it."""


def _line(
    name: str, places: Sequence[tuple[float, float]], colour: str, legend_y: float, legend_x: float
) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>"
    if len(places) <= MOST_MARKS:
        yield from (f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>" for x, y in places)
    yield f"<path d='M{legend_x} {legend_y}h18' stroke='{colour}' stroke-width='3'/>"
    yield _text(legend_x + 24, legend_y + 4, name)


def _ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`, five or so."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def _number(value: float) -> str:
    if value and abs(value) < 10:  # noqa: PLR2004 (below it, digits after the point matter)
        return f"{value:.3g}"
    return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {FONT} {more}>{escape(words)}</text>"


def _page(width: float, height: float, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>\n"
        f"<rect width='100%' height='100%' fill='white'/>\n{inside}\n</svg>\n"
    )
