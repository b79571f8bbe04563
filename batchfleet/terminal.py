"""Everything that reaches a terminal passes through here.

No control characters of a stranger's, and no word broken at the edge.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from io import TextIOBase
from typing import Any, TextIO

LEAST_WIDTH = 20
"""Narrower terminals break words."""
_UNSAFE = re.compile(
    # What a terminal obeys, halves of characters, and what turns the direction of text or is a letter that nobody sees.
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_LABEL = re.compile(r" *\S+(?: \S+)*?:? {2,}")
"""What stands in front of a line's words: `  answers   `, `  to resume:   `."""


def printable(text: str) -> str:
    r"""The text with everything that a terminal would obey written as an escape, such as `\x1b`.

    Line ends and tabs stay.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def folded(text: str, width: int) -> str:
    """The text with lines of at most `width` columns, broken between words.

    What follows stands below the words, not below their label. A word that is longer, such as a path, stays whole: a
    terminal breaks it, and still copies it as one.
    """
    return "".join(_folded(line, width) if len(line) > width else line for line in text.splitlines(keepends=True))


def _folded(line: str, width: int) -> str:
    words = line.rstrip("\n")
    label = _LABEL.match(words)
    indent = label.end() if label else len(words) - len(words.lstrip()) + 2
    if indent > width // 2:
        indent = 2
    lines = textwrap.wrap(
        words,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    return "\n".join(lines) + line[len(words) :]


def folded_command(command: str, width: int) -> str:
    """A command line of a shell over several lines, each but the last with the backslash that makes them one."""
    lines = [""]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if lines[-1] and len(lines[-1]) + len(quoted) + len(" \\ ") > width:
            lines.append(f"  {quoted}")
        else:
            lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)


class TerminalStream(TextIOBase):
    """Writes to another stream what is `printable`; if that is a terminal and `folds`, `folded`."""

    def __init__(self, beneath: TextIO, *, folds: bool) -> None:
        self.beneath = beneath
        self._folds = folds and beneath.isatty()

    def write(self, text: str) -> int:
        shown = printable(text)
        self.beneath.write(folded(shown, width) if self._folds and (width := width_of(self.beneath)) else shown)
        return len(text)

    def flush(self) -> None:
        self.beneath.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # The base has a plain attribute, which would be None.
        return self.beneath.encoding

    def isatty(self) -> bool:
        return self.beneath.isatty()

    def fileno(self) -> int:
        return self.beneath.fileno()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the stream has, such as its buffer)
        return getattr(self.beneath, name)


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal behind it; None for no terminal."""
    try:
        return (
            columns
            if stream.isatty() and (columns := os.get_terminal_size(stream.fileno()).columns) >= LEAST_WIDTH
            else None
        )
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Have standard output and standard error pass through here meanwhile. Data on standard output is not folded."""
    out, err = TerminalStream(sys.stdout, folds=False), TerminalStream(sys.stderr, folds=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
