"""Reading a stream of Redis from one entry to the next, where strangers may have written too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wire.errors import QueueDamagedError

_LAST_MS = b"18446744073709551615-"

Entry = tuple[bytes, dict[bytes, bytes]]


def leaves_no_room(entry_id: bytes) -> bool:
    """Whether a stream whose last entry has this id can never take another.

    Nobody who has read so far would read another either. No stream of a fleet is like that.
    """
    return entry_id.startswith(_LAST_MS)


def entries_of(reply: Any) -> list[tuple[bytes, Sequence[Entry]]]:  # noqa: ANN401 (what redis-py returns)
    """What XREAD has brought: for each stream that has something, its name and the entries.

    Raises:
        QueueDamagedError: One has the last entry that it can ever have. The leading batcher moves it aside.
    """
    found = list(reply or [])
    for stream, entries in found:
        if leaves_no_room(entries[-1][0]):
            raise QueueDamagedError(
                f"{stream.decode('utf-8', 'replace')} has an entry whose id leaves no room for another"
            )
    return found
