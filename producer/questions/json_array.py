"""A JSON array of any size -> its elements, in constant memory.

orjson cannot read piecemeal, so the array is cut by its strings, brackets and commas alone; whether an element is JSON
is for orjson to say. That also confines most mistakes to the element that they are in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from producer.questions.entries import Entry, Unreadable, too_long
from wire.errors import UsageError

_CHUNK_BYTES = 256 * 1024

# Possessive quantifiers (`++`, `*+`): a string that has not ended yet must not be tried in every shorter form.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TO_BRACKET_OR_COMMA = re.compile(rb'(?:[^"{}\[\],]++|' + _STRING + rb")*+([{}\[\],])", re.DOTALL)
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb")*+([{}\[\]])", re.DOTALL)
_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK = re.compile(rb'["{}\[\],]')


def array_entries(file: BinaryIO, path: Path, max_bytes: int) -> Iterator[Entry]:
    """Read the elements of an array, numbered from 1.

    Args:
        file: Stands behind the bracket that opens the array.
        max_bytes: An element longer than this is passed over. Memory: a few times this.

    Raises:
        UsageError: There is more text behind the array, as where each line is a list.
    """
    array = _Array(file, max_bytes)
    yield from array.entries()
    if following := array.text_behind():
        is_list_a_line = following.startswith((b"[", b"{"))
        why = "each line is an object, not a list" if is_list_a_line else "nothing behind it would be asked"
        msg = f"{path}: there is more text after the `]` that closes the array; {why}. "
        msg += (
            'Write all questions in one array, or one a line: {"question": "Why?"}, or {"messages": [...]} for chat '
            "messages"
        )
        raise UsageError(msg)


class _Array:
    """A JSON array that is cut into its elements.

    `_buffer[_start:]` is what has been read from the file and not been given out. `_closer` is what ended the last
    element: a comma, the bracket that closes the array, or nothing, where the file ends too early.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._buffer = b""
        self._start = 0
        self._closer = b","

    def entries(self) -> Iterator[Entry]:
        for number in count(1):
            element = self._next_element()
            if isinstance(element, bytes) and not self._closer:
                element = Unreadable("the file ends before `]` closes the array; is it complete?")
            elif not element and (number > 1 or self._closer == b","):
                element = Unreadable("there is nothing here; remove the comma")
            if element:
                yield number, element
            if self._closer != b",":
                return

    def _next_element(self) -> bytes | Unreadable:
        while True:
            end = self._find_end()
            if end is not None:
                element = self._buffer[self._start : end].strip()
                self._closer = self._buffer[end : end + 1]
                self._start = end + 1
                return element if len(element) <= self._max_bytes else self._too_long(len(element))
            if len(self._buffer) - self._start > self._max_bytes:
                return self._too_long(self._skip_element())
            if not self._read_more():
                self._closer = b""
                return self._buffer[self._start :].strip()

    def _find_end(self) -> int | None:
        """Where the comma or bracket behind the element that begins at `_start` stands.

        None if it is not in the buffer.
        """
        position = self._start
        depth = 0
        while found := (_TO_BRACKET if depth else _TO_BRACKET_OR_COMMA).match(self._buffer, position):
            position = found.end()
            mark = found[1]
            if mark in b"{[":
                depth += 1
            elif depth:
                depth -= 1
            elif mark in b",]":
                return position - 1
        return None

    def _read_more(self) -> bool:
        rest = self._buffer[self._start :]
        # At least doubled: an element is searched from its beginning after each reading, and that must not become
        # quadratic.
        piece = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._buffer = rest + piece
        self._start = 0
        return bool(piece)

    def _skip_element(self) -> int:
        """Go behind an element that is too long to be kept; returns the number of bytes passed over."""
        chunk = self._buffer[self._start :]
        skipped = depth = position = 0
        in_string = False
        while True:
            found = _STRING_REST.match(chunk, position) if in_string else _MARK.search(chunk, position)
            position = found.end() if found else len(chunk)
            # What is left of the chunk is nothing, or a backslash whose other half is in the next one.
            if not found or (in_string and chunk[position : position + 1] != b'"'):
                skipped += position
                piece = self._file.read(_CHUNK_BYTES)
                chunk, position = chunk[position:] + piece, 0
                if not piece:
                    self._buffer, self._start, self._closer = b"", 0, b""
                    return skipped
            elif in_string:
                in_string, position = False, position + 1
            elif (mark := found[0]) == b'"':
                in_string = True
            elif mark in b"{[":
                depth += 1
            elif depth and mark in b"}]":
                depth -= 1
            elif not depth and mark in b",]":
                self._buffer, self._start, self._closer = chunk, position, mark
                return skipped + position - 1

    def _too_long(self, size: int) -> Unreadable:
        problem = too_long(size, self._max_bytes)
        # At the end of the file it is more likely that something before it was never closed.
        return problem if self._closer else Unreadable(f"{problem.reason}, or close its strings and brackets")

    def text_behind(self) -> bytes:
        """The beginning of what stands behind the bracket that closes the array, white space left out."""
        if self._closer != b"]":
            return b""
        while not (text := self._buffer[self._start :].lstrip()):
            self._start = len(self._buffer)
            if not self._read_more():
                return b""
        return text
