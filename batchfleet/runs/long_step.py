"""What takes long before and after a run, such as checking millions of rows: said on stderr from two seconds on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from batchfleet.console import TerminalConsole
from batchfleet.humanize import count

FIRST_S = 2.0
ON_TERMINAL_S = 0.5
ELSEWHERE_S = 10.0

Tick = Callable[[int], None]


class LongStep:
    """Called with how far it is, as often as one likes; used in a `with` statement.

    Args:
        what: What is done, such as `checking the questions`.
        unit: What is counted; `bytes` are shown in megabytes.
        after: What an interrupted step leaves, for the person who interrupts it.
        check: Called with each count; may raise KeyboardInterrupt.
        quiet: Say nothing while it goes on.
    """

    def __init__(
        self, what: str, unit: str, after: str, *, check: Callable[[], None] = lambda: None, quiet: bool = False
    ) -> None:
        self._what = what
        self._unit = unit
        self._after = after
        self._check = check
        self._done = 0
        self._is_over = threading.Event()
        self._speaker = threading.Thread(target=self._speak, name="long-step", daemon=True)
        self._quiet = quiet

    def __call__(self, done: int) -> None:
        self._done = done
        self._check()

    def __enter__(self) -> Self:
        if not self._quiet:
            self._speaker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        if not self._quiet:
            self._speaker.join()
        if isinstance(error, KeyboardInterrupt):
            print(f"batchfleet: interrupted while {self._what}; {self._after}", file=sys.stderr)

    def _speak(self) -> None:
        if self._is_over.wait(FIRST_S):
            return
        console = TerminalConsole(stderr=True)
        if not console.is_terminal:
            print(self._line(), file=sys.stderr, flush=True)
            while not self._is_over.wait(ELSEWHERE_S):
                print(self._line(), file=sys.stderr, flush=True)
            return
        with console.status(self._line()) as status:
            while not self._is_over.wait(ON_TERMINAL_S):
                status.update(self._line())

    def _line(self) -> str:
        far = f"{self._done / 1e6:.1f} MB" if self._unit == "bytes" else f"{count(self._done)} {self._unit}"
        return f"{self._what}: {far} so far"
