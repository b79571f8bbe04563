"""Which ids occur where, for any number of ids, in a few megabytes of memory.

Ids are hashed to 16 bytes, and what belongs to a hash goes to one of 256 partitions by its first byte. Equal ids meet in one partition, so each
partition is looked at on its own. A partition that outgrows its buffer moves to a temporary file; few ids never touch the disk.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from types import TracebackType
from typing import Any, NamedTuple, Self

from producer.questions.spill_file import PARTITIONS, Spill
from wire.errors import UsageError

MOST_DUPLICATES = 100_000
"""More ids than this that are not the first of their kind are not a slip; the file was made wrongly."""

_DIGEST_BYTES = 16
_MOST_UNKNOWN_IDS = 5
_MOST_ID_BYTES = 4096

_USE = struct.Struct(f"<{_DIGEST_BYTES}sQQ")
"""Of an id: digest, index << 1 | whether the question is invalid, line."""
_POSITION = struct.Struct(f"<{_DIGEST_BYTES}sQ")
"""Of a question: digest of its id, index."""
_ANSWERED = struct.Struct(f"<{_DIGEST_BYTES}sH")
"""Of an answered id: digest, length of the id, which follows."""


class Answered(NamedTuple):
    """Which questions of a file have been answered already.

    Attributes:
        bitmap: One bit per question, set if it is answered; ceil(count / 8) bytes. Bit order is that of Redis: index 0 is the highest bit.
        unknown: Up to 5 answered ids that no question has; from another file, most likely.
        repeated: How many ids were answered more than once.
    """

    bitmap: bytearray
    unknown: list[str]
    repeated: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A question whose id belongs to another.

    Attributes:
        index, line, invalid: As they were added.
        keeper_line: Line of the question that keeps the id.
    """

    index: int
    line: int
    invalid: bool
    keeper_line: int


def is_set(bitmap: bytes | bytearray, index: int) -> bool:
    """Look up one bit, in the bit order of Redis."""
    return bool(bitmap[index >> 3] & (0x80 >> (index & 7)))


def count_before(bitmap: bytes | bytearray, end: int) -> int:
    """How many bits are set before position `end`."""
    whole, rest = divmod(end, 8)
    last = bitmap[whole] >> (8 - rest) if rest else 0
    return int.from_bytes(bitmap[:whole], "big").bit_count() + last.bit_count()


class DuplicateFinder:
    """Finds ids that occur more than once in a file. Used in a `with` statement, which removes its temporary files."""

    def __init__(self) -> None:
        self._uses = Spill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uses.__exit__(kind, error, trace)

    def add(self, request_id: str, index: int, line: int, *, invalid: bool) -> None:
        """Note one id. Called in the order of the file.

        Args:
            request_id: Any text, lone surrogates excepted.
            index: Position among the questions.
            line: Where people find it, below 2**64.
            invalid: The question is unusable anyway, so it should not take the id from one that is not.
        """
        digest = digest_of(request_id)
        self._uses.append(digest[0], _USE.pack(digest, index << 1 | invalid, line))

    def duplicates(self) -> list[Duplicate]:
        """Tell which questions must give up their id, in no order.

        The first valid question with an id keeps it, or the first invalid one if no valid one has it.

        Raises:
            UsageError: There are more than `MOST_DUPLICATES`.
        """
        found: list[Duplicate] = []
        for partition in range(PARTITIONS):
            if _count_repetitions(self._uses.blocks(partition), MOST_DUPLICATES - len(found)):
                found += _duplicates_among(
                    [use for block in self._uses.blocks(partition) for use in _USE.iter_unpack(block)]
                )
        return found


def _duplicates_among(uses: list[tuple[Any, ...]]) -> Iterator[Duplicate]:
    keepers: dict[bytes, int] = {}
    # Valid questions first, each kind in the order of the file.
    for digest, tagged, line in sorted(uses, key=lambda use: (use[1] & 1, use[1])):
        if digest in keepers:
            yield Duplicate(tagged >> 1, line, bool(tagged & 1), keepers[digest])
        else:
            keepers[digest] = line


def _count_repetitions(blocks: Iterator[bytes], most: int) -> int:
    """How many uses of an id are not its first. Stops before they are held in memory if they are too many."""
    count = 0
    seen: set[bytes] = set()
    for block in blocks:
        seen.update(block[at : at + _DIGEST_BYTES] for at in range(0, len(block), _USE.size))
        count += len(block) // _USE.size
        if count - len(seen) > most:
            index = _USE.unpack_from(block, len(block) - _USE.size)[1] >> 1
            msg = f"more than {MOST_DUPLICATES} questions have the id of another (number {index + 1}, for one); give each its own, or none"
            raise UsageError(msg)
    return count - len(seen)


def positions_answered(questions: Iterable[tuple[str, int]], answered_ids: Iterable[str]) -> Answered:
    """Match the questions of a file with the ids in an answer file that an earlier attempt left.

    Each iterable is gone through once, questions first. Memory: the bitmap and a few megabytes.

    Args:
        questions: (request id, index) of every question; ids are unique, indices are 0 to count - 1, in any order.
        answered_ids: Ids that have an answer; any text, in any order, repetitions allowed.

    Raises:
        UsageError: The temporary files cannot be written.
    """
    with Spill() as positions, Spill() as answered:
        count = _spill_positions(questions, positions)
        _spill_answered(answered_ids, answered)
        result = Answered(bytearray((count + 7) // 8), [], 0)
        for partition in range(PARTITIONS):
            result = _match(positions.blocks(partition), answered.blocks(partition), result)
    return result


def _spill_positions(questions: Iterable[tuple[str, int]], spill: Spill) -> int:
    """Returns the number of questions."""
    count = 0
    for request_id, index in questions:
        digest = digest_of(request_id)
        spill.append(digest[0], _POSITION.pack(digest, index))
        count += 1
    return count


def _spill_answered(answered_ids: Iterable[str], spill: Spill) -> None:
    for request_id in answered_ids:
        digest = digest_of(request_id)
        text = request_id.encode("utf-8", "replace")[:_MOST_ID_BYTES]
        spill.append(digest[0], _ANSWERED.pack(digest, len(text)) + text)


def _match(positions: Iterator[bytes], answered: Iterator[bytes], so_far: Answered) -> Answered:
    bitmap, unknown, repeated = so_far
    index_of: dict[bytes, int] = dict(position for block in positions for position in _POSITION.iter_unpack(block))
    seen_again: dict[bytes, bool] = {}
    for digest, text in (record for block in answered for record in _answered_in(block)):
        if digest in seen_again:
            seen_again[digest] = True
            continue
        seen_again[digest] = False
        index = index_of.get(digest)
        if index is not None:
            bitmap[index >> 3] |= 0x80 >> (index & 7)
        elif len(unknown) < _MOST_UNKNOWN_IDS:
            unknown.append(text.decode("utf-8", "replace"))
    return Answered(bitmap, unknown, repeated + sum(seen_again.values()))


def _answered_in(records: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(records):
        digest, length = _ANSWERED.unpack_from(records, at)
        at += _ANSWERED.size + length
        yield digest, records[at - length : at]


def digest_of(request_id: str) -> bytes:
    """16 bytes that stand for an id."""
    # surrogatepass: an answer file may hold anything, and must not bring the comparison down.
    return blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
