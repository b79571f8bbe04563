"""The commands that README.md and docs/*.md show, as a reader would type them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))))

_COMMAND = re.compile(
    r"(?:[A-Z_]+=\S* )*"
    r"(?:(?:\.venv(?:-vllm)?/bin/)?(?:batchfleet|python3?)|(?:scripts|deploy)/[\w-]+"
    r"|rq|docker|printf|echo|export|cp|sed|mkdir|gzip|zstd)(?= |$)(?! ?[>=] )"
)
_FROM_THE_DEMO = "/batchfleet-demo."
"""README shows what `scripts/demo` prints; a command is among it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One command on a page.

    Attributes:
        section: The heading above it.
        text: As a shell takes it; or a whole Python program.
        printed: The lines below it that are no commands.
    """

    page: str
    section: str
    line: int
    text: str
    printed: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def is_program(self) -> bool:
        return self.text.startswith("from batchfleet import")

    @property
    def is_open(self) -> bool:
        """Whether more lines belong to it: those of a text that the shell hands it."""
        return "<<'END'" in self.text and not self.text.endswith("\nEND")


def commands_of(page: str) -> list[Shown]:
    """Those in indented code blocks, in their order. What stands in a fence was printed, and is no command."""
    found: list[Shown] = []
    for section, start, lines in _blocks(page):
        if lines[0].startswith("from batchfleet import"):
            found.append(Shown(page, section, start, "\n".join(lines)))
            continue
        for number, line in enumerate(lines):
            if found and found[-1].line >= start and found[-1].is_open:
                found[-1] = replace(found[-1], text=f"{found[-1].text}\n{line}")
            elif _COMMAND.match(line.lstrip()) and _FROM_THE_DEMO not in line:
                found.append(Shown(page, section, start + number, line.lstrip()))
            elif found and ((number and found[-1].line >= start) or _FROM_THE_DEMO in lines[0]) and line.strip():
                found[-1] = replace(found[-1], printed=(*found[-1].printed, line))
    return found


def _blocks(page: str) -> Iterator[tuple[str, int, list[str]]]:
    """(heading, number of the first line, lines without their indentation) of each block of indented lines."""
    section, block, start, fenced = "", list[str](), 0, False
    for number, line in enumerate([*(ROOT / page).read_text(encoding="utf-8").splitlines(), ""], 1):
        fenced ^= line.startswith("```")
        if line.startswith("    ") and not fenced:
            start = start if block else number
            block.append(line[4:])
            continue
        if block and not (not line and block and _goes_on(page, number)):
            yield section, start, block
            block = []
        elif block:
            block.append("")
        section = line if line.startswith("#") else section


def _goes_on(page: str, number: int) -> bool:
    """Whether the block continues after an empty line."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return number < len(lines) and lines[number].startswith("    ")
