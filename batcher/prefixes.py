"""Which questions begin alike, and in which order they ride so that an engine's prefix cache helps. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from batcher.packing import Waiting

LENGTHS = tuple(int(1024 * 1.5**step) for step in range(11))
"""Bytes, 1 024 to 59 049: two texts count as alike as far as the longest of these lengths that they share.

Less is not worth a cache, some 250 tokens. Steps of a half, so that documents behind the same instructions are told
apart where they are at least half as long as those.
"""
Prefix = tuple[int, ...]
"""A hash of the beginning for each of `LENGTHS` that the text reaches, good in this process; a short text has none."""


class _Text(msgspec.Struct):
    """What is looked at in an encoded question, of whatever wire version; the rest is skipped."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


_DECODER = msgspec.msgpack.Decoder(_Text)


def prefix_of(data: bytes) -> Prefix:
    """Of an encoded question; none if it is short, has no text, or cannot be read, which is for the worker to say."""
    if len(data) <= LENGTHS[0]:
        return ()
    try:
        question = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ()
    text = question.prompt or "\n".join([str(message.get("content")) for message in question.messages or ()])
    encoded = text[: LENGTHS[-1]].encode()
    marks, mark, start = [], 0, 0
    for end in LENGTHS[: bisect_right(LENGTHS, len(encoded))]:
        mark = hash((mark, encoded[start:end]))
        marks.append(mark)
        start = end
    return tuple(marks)


def shared(one: Prefix, other: Prefix) -> int:
    """How many of `LENGTHS` two texts have in common."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


def together(questions: Sequence[Waiting]) -> list[Waiting]:
    """The same questions, in an order in which those that share the longest beginnings stand side by side.

    They stand where the first of them stood, and among each other as they came. What shares nothing keeps its order.
    """
    first = [dict[int, int]() for _ in LENGTHS]
    places = [
        (*(seen.setdefault(mark, number) for seen, mark in zip(first, question.prefix, strict=False)), number)
        for number, question in enumerate(questions)
    ]
    places.sort()
    return [questions[place[-1]] for place in places]
