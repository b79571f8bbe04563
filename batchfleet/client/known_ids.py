"""Which ids a run has had already: all of them, in little more than eight bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from wire.errors import UsageError

BUCKETS = 4096
"""So that an insertion moves few bytes: of ten million ids, 2 400 are in one bucket."""
MOST_IDS = 50_000_000


class KnownIds:
    """A set of ids, kept as 64-bit hashes.

    The hash is SipHash with this process's key, so nobody can make two ids meet on purpose. Two different ids of a
    million have the same hash once in 37 million runs.
    """

    def __init__(self, most: int = MOST_IDS) -> None:
        self._buckets = [array("q") for _ in range(BUCKETS)]
        self._left = most

    def add(self, name: str) -> bool:
        """Take in an id; whether it was new.

        Raises:
            UsageError: There are too many.
        """
        hashed = hash(name)
        bucket = self._buckets[hashed % BUCKETS]
        place = bisect_left(bucket, hashed)
        if place < len(bucket) and bucket[place] == hashed:
            return False
        if not self._left:
            raise UsageError(
                "a run cannot have more questions with ids of their own, or nobody could tell whether one comes twice; "
                "begin another run"
            )
        self._left -= 1
        bucket.insert(place, hashed)
        return True
