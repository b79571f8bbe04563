"""Does a step until Redis answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from wire.connection import RedisAddress, translated
from wire.errors import QueueUnavailableError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

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
        self, address: RedisAddress, run: str, patience_s: float, stopping: threading.Event, say: Callable[[str], None]
    ) -> None:
        self._address = address
        self._run = run
        self._patience_s = patience_s
        self._stopping = stopping
        self._say = say

    def persist(self, step: Callable[[], T], before_again: Callable[[], None] = lambda: None) -> T:
        """Do a step that may safely be done twice, until Redis answers.

        Raises:
            QueueUnavailableError: It did not for `patience_s` seconds.
            StoppedError: We were told to stop meanwhile.
        """
        away_since, pause_s = 0.0, FIRST_PAUSE_S
        while True:
            try:
                with translated(self._address):
                    return step()
            except QueueUnavailableError as error:
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > self._patience_s:
                    msg = f"{error}, for {self._patience_s:.0f} s; run {self._run} can be resumed when it does"
                    raise QueueUnavailableError(msg) from error
                self._say(str(error))
                if self._stopping.wait(pause_s):
                    raise StoppedError from error
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                before_again()
