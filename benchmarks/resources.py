"""What processes use, as Linux counts it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system together, of a process and of its children that ended.

    Children count because redis-server forks to rewrite its file.
    """
    # The name before them is in parentheses and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S


def tree_cpu_s(root: int) -> float:
    """The same of a process and of all its descendants together.

    What one of them used counts until its parent has heard that it ended, and after.
    """
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # It may end while we look.
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
            used[int(folder.name)] = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S
    total, todo = 0.0, [root]
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0.0)
        todo += children.get(pid, [])
    return total


def resident_mib(pid: int) -> float:
    """Resident memory in MiB, shared pages included."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES / MIB


@dataclass(slots=True)
class MemoryWatch:
    """Samples the resident memory of processes while its `with` block runs.

    Attributes:
        pids: By the name that the process has in tables.
        every_s: Seconds between two looks.
        samples: (seconds since the beginning, MiB by name).
    """

    pids: Mapping[str, int]
    every_s: float = 0.1
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def at(self, share: float) -> dict[str, float]:
        """MiB by process when `share` (0 to 1) of the time had passed."""
        until = share * self.samples[-1][0]
        return next(memory for elapsed_s, memory in self.samples if elapsed_s >= until)

    def peak(self) -> dict[str, float]:
        return {name: max(memory[name] for _, memory in self.samples) for name in self.pids}

    def _watch(self) -> None:
        began = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(self.every_s)
            try:
                memory = {name: resident_mib(pid) for name, pid in self.pids.items()}
            except (OSError, IndexError):
                # A process ended; what was seen before still counts.
                return
            self.samples.append((time.monotonic() - began, memory))
