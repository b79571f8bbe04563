"""Where the records of a run wait for the program that wants them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from batchfleet.client.answers import Answer, Failure, from_record
from producer.answers.sink import Received
from wire.errors import FleetError

PAGES = 2000
"""Records held for a program that is slower than the fleet; the rest waits in Redis, within the run's window."""


class Outbox:
    """Records in the order in which they were made, each given out once.

    A record counts as handled when the next one is asked for: until then the program may still die over it, and it has
    to come again.

    Args:
        on_change: Called, by another thread, whenever there is something new to look at.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._records: deque[Received] = deque()
        self._changed = threading.Condition()
        self._given = b""
        self._handled = b""
        self._finished = False
        self._error: BaseException | None = None

    def put(self, records: Sequence[Received]) -> None:
        with self._changed:
            if self._error is None:
                self._records.extend(records)
            self._changed.notify_all()
        self._on_change()

    def has_room(self, wait_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self._records) < PAGES, wait_s)

    def settle(self, received: bytes) -> bytes:
        with self._changed:
            # After an error there are none to give out any more, which does not mean that those were handled.
            return received if self._error is None and self._is_settled() else self._handled

    def finish(self, error: BaseException | None) -> None:
        with self._changed:
            if self._finished:
                return
            self._finished = True
            self._error = error
            if error is not None:
                # They were not acknowledged, so whoever resumes the run gets them; given out here, they would come
                # twice.
                self._records.clear()
            self._changed.notify_all()
        self._on_change()

    def is_settled(self, wait_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._is_settled, wait_s)

    def _is_settled(self) -> bool:
        return not self._records and self._handled == self._given

    @property
    def has_ended_well(self) -> bool:
        """Whether all results are here, or still to come."""
        with self._changed:
            return self._error is None

    def raise_error(self) -> None:
        """Raise what ended the run early."""
        if self._error is not None:
            raise self._error

    @property
    def is_ready(self) -> bool:
        """Whether `take` would return at once."""
        with self._changed:
            return bool(self._records) or self._finished

    def acknowledge(self) -> None:
        """What was taken is handled. `take` does it by itself."""
        with self._changed:
            self._handled = self._given
            self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> Answer | Failure | None:
        """The next result; None after the last.

        Raises:
            TimeoutError: None came within `timeout_s` seconds; it can be asked for again.
            BaseException: Whatever ended the run early, in place of its end.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            self.acknowledge()
            if not self._changed.wait_for(
                lambda: self._records or self._finished, None if until is None else max(0.0, until - time.monotonic())
            ):
                raise TimeoutError(f"no answer within {timeout_s:g} s; the run continues")
            if self._records:
                self._given, record = self._records.popleft()
                return from_record(record)
            if self._error is not None:
                raise self._error
            return None


Result = Future[Answer | Failure]


class Waiters:
    """Records that go each to the one who waits for it, and are handled with that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[int, Result] = {}
        self.is_finished = False

    def add(self, index: int) -> Result | None:
        """The future of a question that is about to be asked; None if no records come any more."""
        future: Result = Future()
        with self._lock:
            if self.is_finished:
                return None
            self._futures[index] = future
        return future

    def drop(self, index: int) -> None:
        """Nobody waits for this one any more."""
        with self._lock:
            self._futures.pop(index, None)

    @property
    def count(self) -> int:
        with self._lock:
            return len(self._futures)

    def put(self, records: Sequence[Received]) -> None:
        for _, record in records:
            with self._lock:
                future = self._futures.pop(record.index, None)
            if future is not None and future.set_running_or_notify_cancel():
                future.set_result(from_record(record))

    def has_room(self, wait_s: float) -> bool:  # noqa: ARG002 (whoever asked has made the room)
        return True

    def settle(self, received: bytes) -> bytes:
        return received

    def is_settled(self, wait_s: float) -> bool:  # noqa: ARG002 (it is at once)
        return True

    def finish(self, error: BaseException | None) -> None:
        with self._lock:
            self.is_finished = True
            left = list(self._futures.values())
            self._futures.clear()
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(error or FleetError("the run of this question ended without an answer"))
