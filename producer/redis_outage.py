"""Does a step until Redis answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.errors import QueueUnavailableError
from wire.redis_errors import translated

STOP_CHECK_S = 0.25
"""How often a caller is let look around while Redis is away."""

T = TypeVar("T")


class StoppedError(Exception):
    """Leads out of a wait that was ended."""


class RetryUntilAvailable:
    """Of one run. May be used by several threads.

    Args:
        patience_s: How long Redis may be away, in seconds.
        stopping: Ends every wait.
        say: Told what is waited for.
    """

    def __init__(
        self, address: RedisAddress, patience_s: float, stopping: threading.Event, say: Callable[[str], None]
    ) -> None:
        self._address = address
        self._patience_s = patience_s
        self._stopping = stopping
        self._say = say

    def persist(
        self,
        step: Callable[[], T],
        look_around: Callable[[], None] = lambda: None,
        before_again: Callable[[], None] = lambda: None,
    ) -> T:
        """Do a step that may safely be done twice, until Redis answers.

        Args:
            look_around: Called several times a second while it does not; what it raises ends the wait.
            before_again: Called before each further try.

        Raises:
            QueueUnavailableError: It did not for `patience_s` seconds.
            StoppedError: We were told to stop meanwhile.
        """
        away_since, backoff = 0.0, Backoff()
        while True:
            try:
                with translated(self._address):
                    result = step()
            except QueueUnavailableError as error:
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > self._patience_s:
                    raise QueueUnavailableError(f"{error}, for {self._patience_s:.0f} s") from error
                self._say(str(error))
                self._wait(backoff.next_s(), look_around)
                before_again()
            else:
                if away_since:
                    self._say("")
                return result

    def _wait(self, pause_s: float, look_around: Callable[[], None]) -> None:
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            if self._stopping.wait(min(left_s, STOP_CHECK_S)):
                raise StoppedError
            look_around()
