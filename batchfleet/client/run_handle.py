"""A handle on a run, for programs that wait by blocking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal, Self, overload

from batchfleet.client.answers import Answer, Failure
from batchfleet.client.live_run import LiveRun
from batchfleet.client.question_errors import Errors, check_errors, raise_if_failed
from batchfleet.client.run_status import RunStatus

FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 0.5


class Run:
    """Questions that were submitted together.

    The run lives in the fleet: this handle may be dropped, and made again by `Fleet.run(id)`.

    Attributes:
        id: Its name, with which any process can find it.
    """

    def __init__(self, live: LiveRun) -> None:
        self._live = live
        self.id = live.id

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def results(self, *, errors: Literal["raise"] = "raise", timeout_s: float | None = None) -> Iterator[Answer]: ...
    @overload
    def results(self, *, errors: Errors, timeout_s: float | None = None) -> Iterator[Answer | Failure]: ...
    def results(self, *, errors: Errors = "raise", timeout_s: float | None = None) -> Iterator[Answer | Failure]:
        """The results as they are made, each once: what was taken here, or by an earlier process, does not come again.

        A result counts as taken when the next one is asked for. If the process dies before, it comes again: at least
        once, and `id` tells.

        Args:
            errors: `raise` stops at the first failed question; calling `results` again continues after it. `return`
                gives failures as values.
            timeout_s: Longest wait for the next result; None for ever.

        Raises:
            QuestionFailedError: With `errors="raise"`: a question failed.
            TimeoutError: No result came in time; the run continues.
            FleetError: The run cannot be resumed here; the message says why.
        """
        check_errors(errors)
        self._live.collect()
        return self._results(errors, timeout_s)

    def _results(self, errors: Errors, timeout_s: float | None) -> Iterator[Answer | Failure]:
        while (result := self._live.outbox.take(timeout_s)) is not None:
            yield raise_if_failed(result, errors)

    def wait(self, timeout_s: float | None = None) -> RunStatus:
        """Return when every question has its result, taken or not.

        Raises:
            TimeoutError: It was not so within `timeout_s` seconds; the run continues.
            UsageError: It will not be so before results are taken: they fill the run's window.
            QueueUnavailableError: Redis did not answer for `redis.patience_s` (ten minutes).
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = FIRST_LOOK_S
        while not self._live.is_over():
            if until is not None and time.monotonic() >= until:
                raise not_in_time(self.id, timeout_s)
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_LOOK_S)
        return self.status()

    def status(self) -> RunStatus:
        """How it stands.

        Raises:
            UsageError: The run expired.
        """
        return self._live.status()

    def cancel(self) -> RunStatus:
        """Ask no more of it, and end what has no result yet as a failure of kind `cancelled`.

        Other runs are not touched.
        """
        return self._live.cancel()

    def close(self) -> None:
        """Submit and collect no more here.

        What was accepted is still answered, and `Fleet.run(id)` collects it, in this process or another.
        """
        self._live.leave()


def not_in_time(run: str, timeout_s: float | None) -> TimeoutError:
    return TimeoutError(f"run {run} was not done within {timeout_s:g} s; it continues")
