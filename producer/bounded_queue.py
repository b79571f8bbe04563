"""What one thread puts in and another takes out, in order: bounded, and either side may end it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def _nothing() -> None:
    """A callback that does nothing."""


class BoundedQueue(Generic[T]):
    """Questions on their way to the thread that sends them.

    Args:
        most: More than this many wait outside; None for no bound.
        on_taken: Called by the taking thread whenever it made room.
    """

    def __init__(self, most: int | None, on_taken: Callable[[], None] = _nothing) -> None:
        self._most = most
        self._on_taken = on_taken
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self.is_closed = False

    def offer(self, item: T) -> bool:
        """Put something in if there is room; returns whether there was. Never waits."""
        with self._changed:
            if self.is_closed or not self._has_room():
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put(self, item: T) -> bool:
        """Put something in, and wait for room; False if nobody takes anything any more."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or self._has_room())
            return self.offer(item)

    def take(self, most: int, wait_s: float) -> list[T]:
        """Up to `most` items; waits up to `wait_s` seconds for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._finished or self.is_closed, wait_s)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
        if taken:
            self._on_taken()
        return taken

    def finish(self) -> None:
        """No more will come."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody will take any more; what is in it is dropped, and those who wait for room return."""
        with self._changed:
            self.is_closed = True
            self._items.clear()
            self._changed.notify_all()
        self._on_taken()

    @property
    def is_over(self) -> bool:
        """Whether nothing is in it and nothing will be."""
        with self._changed:
            return self.is_closed or (self._finished and not self._items)

    def _has_room(self) -> bool:
        return self._most is None or len(self._items) < self._most
