"""Records what an engine's processes write while they start, and passes it on."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import Self

KEPT_LINES = 400
_CHUNK_BYTES = 65_536


class OutputTee:
    """Passes on to stderr, and remembers, what processes started inside its `with` block write.

    It does so for as long as they live. Inside the block it also hears this process's own stdout and stderr, because
    file descriptors 1 and 2 are what children inherit. What an engine writes to stdout goes to stderr too: stdout is
    for data. One block at a time in a process; several after each other add to the same lines.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._unfinished: dict[int, bytes] = {}
        """Of each pipe, the line that has not ended yet."""
        self._lock = threading.Lock()
        self._saved: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def settle(self, timeout_s: float) -> None:
        """After the block: wait until everything has been heard that processes wrote before they ended.

        If some still live after `timeout_s`, wait no longer.
        """
        if self._thread is not None:
            self._thread.join(timeout_s)

    def lines(self) -> list[str]:
        """The last lines heard, oldest first, at most `KEPT_LINES`."""
        with self._lock:
            unfinished = [line.decode(errors="replace") for line in self._unfinished.values() if line]
            return [*self._lines, *unfinished]

    def __enter__(self) -> Self:
        _flush()
        self._saved = os.dup(1), os.dup(2)
        source, sink = os.pipe()
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        self._thread = threading.Thread(
            target=self._pass_on, args=(source, os.dup(self._saved[1])), name="engine-output", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is None:
            return
        _flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._saved = None

    def _pass_on(self, source: int, target: int) -> None:
        # Ends by itself when the last process that holds the other end is gone.
        while data := os.read(source, _CHUNK_BYTES):
            with self._lock:
                *whole, unfinished = (self._unfinished.get(source, b"") + data).split(b"\n")
                # A process that never ends its line must not fill our memory.
                self._unfinished[source] = unfinished[-_CHUNK_BYTES:]
                self._lines.extend(line.decode(errors="replace").rstrip("\r") for line in whole)
            _write(target, data)
        os.close(source)
        os.close(target)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _write(target: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(target, data) :]
    except OSError:
        # Nobody reads our stderr any more; keep reading, or the engine would block on a full pipe.
        return
