"""Rich's console, for which only its own codes are codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from batchfleet.terminal import printable

UNBOUNDED = 10_000
"""Columns where there is no terminal: whoever reads a file, or searches one, wants lines neither cut nor broken."""


class TerminalConsole(Console):
    """Writes what is `printable`, to fit a terminal; elsewhere as wide as it is."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(file=getattr(stream, "beneath", stream))
        if not self.is_terminal:
            self.width = UNBOUNDED

    @property
    def width_if_terminal(self) -> int | None:
        """Columns that tables are to fit; None where there is no terminal."""
        return self.width if self.is_terminal else None

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, which calls this for every part of a whole."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
