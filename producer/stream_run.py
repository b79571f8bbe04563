"""A run whose questions come from a program, one by one, and whose records go back to it as they are made.

Where the file of questions can be read again, this keeps the questions that have no record yet.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from producer.answers.sink import Sink
from producer.bounded_queue import BoundedQueue
from producer.options import ProducerOptions
from producer.run_loop import RunLoop
from producer.sender import RunState
from producer.sender_thread import JOIN_S, RunPlan
from producer.stream_source import PendingQuestion, StreamSource
from wire.address import RedisAddress
from wire.connection import check_server, connect
from wire.errors import FleetError


class StreamRun(RunLoop):
    """One run, from `start` to `stop`, in threads of its own. Each of its questions names its model."""

    def __init__(
        self,
        address: RedisAddress,
        options: ProducerOptions,
        run: str,
        fingerprint: dict[str, str],
        inbox: BoundedQueue[PendingQuestion] | None,
        sink: Sink,
    ) -> None:
        full = f"waits for results to be taken: {options.run_window} are accepted and not taken, which fills the window"
        plan = RunPlan(run, fingerprint, sends=inbox is not None, full_window=full)
        self._stream = StreamSource(run, inbox)
        super().__init__(address, options, plan, self._stream, sink)
        self._thread = threading.Thread(target=self._serve, name=f"batchfleet {run}", daemon=True)

    def open(self) -> RunState:
        """As every run is opened, but an unreachable Redis is an error at once."""
        with connect(self._address) as client:
            check_server(client, self._address)
        return super().open()

    def start(self) -> None:
        """Send and receive from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Send and receive no more, and let another producer have the run. What was accepted is still answered.

        Returns when it is done.
        """
        words = "was left before its end; what was accepted is still answered, and can be collected under that id"
        self.fail(FleetError(f"run {self.plan.run} {words}"))
        if not self._thread.ident:
            self.leave()
        elif self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def withdraw(self, index: int) -> None:
        """Nobody wants this record any more: do not send the question, or have the fleet end it. Never waits."""
        if self._stream.withdraw(index):
            self.withdrawals.add(index)

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, and its threads too."""
        return not self.is_live and not self._thread.is_alive()

    def _serve(self) -> None:
        # Whoever waits for records was told.
        with contextlib.suppress(BaseException):
            self.serve()


def with_window(options: ProducerOptions, window: int | None) -> ProducerOptions:
    """The same options with another bound for one run."""
    return options if window is None else replace(options, run_window=window)
