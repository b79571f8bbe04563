"""What a person sees while a run is on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from producer.stock import Tally

LINE_EVERY_S = 5.0
REFRESH_S = 0.1


class ProgressView:
    """To be used in a `with` statement; `show` may be called as often as one likes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._next = 0.0
        self._waiting_since: float | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[words]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=None, words="starting")
        else:
            self._next = time.monotonic() + LINE_EVERY_S
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._quiet = True

    def say(self, what: str) -> None:
        """Before there are questions to count: what is going on."""
        if self._quiet or time.monotonic() < self._next:
            return
        if self._bar is not None:
            self._next = time.monotonic() + REFRESH_S
            self._bar.update(self._task, words=what)
        else:
            self._next = time.monotonic() + LINE_EVERY_S
            print(what, file=sys.stderr, flush=True)

    def show(self, tally: Tally) -> None:
        if self._quiet or time.monotonic() < self._next:
            return
        if self._bar is not None:
            self._next = time.monotonic() + REFRESH_S
            self._bar.update(self._task, total=tally.questions, completed=tally.on_disk, words=words(tally))
        else:
            self._next = time.monotonic() + LINE_EVERY_S
            print(f"{tally.on_disk} of {tally.questions} done, {words(tally)}", file=sys.stderr, flush=True)


def words(tally: Tally) -> str:
    """The state of a run in a few words."""
    done = tally.on_disk - tally.resumed
    parts = [f"{done / tally.elapsed_s:.0f}/s" if done and tally.elapsed_s > 0 else "waiting for the first answer"]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.waiting_for:
        parts.append(tally.waiting_for)
    return ", ".join(parts)
