"""Settings as they were given: blocks of entries that know their lines."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple


class Where(NamedTuple):
    """Where a setting was given: a file, the environment or the command line, and in a file its line, from 1."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value.

    Attributes:
        value: Plain data, a `Block`, or `Raw` text that becomes a value once it is known for which setting.
    """

    key: str
    where: Where
    value: object


@dataclass(frozen=True, slots=True)
class Block:
    """A mapping, in the order of the text; no key twice."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as the environment and the command line give it: text."""

    text: str


def shown(key: str) -> str:
    """A key as a message may show it: short, and without what a forgotten space after a colon made part of it."""
    word = re.match(r"[^:=\s]{1,60}", key)
    cut = word.group() if word else "(no name)"
    return cut if cut == key or not word else f"{cut}..."


def repeated(where: Where, key: str, before: Where) -> str:
    """The warning that a setting is given twice."""
    return f"{where}: {key}: given at {before} already; what stands here counts, what stands there is ignored"


def as_block(data: dict[Hashable, object], where: Where) -> Block:
    """A block from plain data, everything of it from one place."""
    return Block(
        tuple(
            Entry(str(key), where, as_block(value, where) if isinstance(value, dict) else value)
            for key, value in data.items()
        )
    )
