"""Lets Redis forget the records that were handled, and keeps our claim to the run meanwhile."""

from __future__ import annotations

import time

from producer.answers.sink import Sink
from producer.collector import Collector


class Settlement:
    """What was handled of a run, and whether Redis knows.

    Args:
        renew_s: After so many seconds the claim is renewed even if nothing new was handled.

    Attributes:
        open_records: Records received since the last settlement.
    """

    def __init__(self, collector: Collector, sink: Sink, renew_s: float) -> None:
        self.open_records = 0
        self._collector = collector
        self._sink = sink
        self._renew_s = renew_s
        self._acknowledged = b""
        self._renew_at = 0.0

    def restart(self) -> None:
        """Acknowledge everything again: Redis may have lost the news."""
        self._acknowledged = b""

    def settle(self) -> bool:
        """Let Redis drop what was handled, and renew our claim to the run.

        Returns:
            Whether that made room for further questions.

        Raises:
            LeaseLostError: Another producer has taken the run over.
        """
        handled = self._sink.settle(self._collector.seen)
        self.open_records = 0
        is_new = handled != self._acknowledged
        if is_new or time.monotonic() >= self._renew_at:
            if handled:
                self._collector.handled(handled)
            self._collector.acknowledge()
            self._renew_at = time.monotonic() + self._renew_s
            self._acknowledged = handled
        return is_new
