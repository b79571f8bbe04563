"""Ends what a worker leaves behind.

Runs as a process of its own; knows only the standard library, so that it starts in milliseconds. `python -I -S
watchdog.py OWNER MARK FOLDER`: OWNER is the process id of the worker, which is the parent and holds the other end of
standard input. A line `q` there means that all is well: exit. The end of standard input means that the worker is gone,
however that came about, SIGKILL included: end every process of its tree, and remove FOLDER, where they kept what is of
no use to others. What belongs to that tree is known in three ways, as a process whose parent died forgets who that was:

- seen as a descendant while the worker lived, by looking at /proc twice a second; remembered with its start time, so
  that a process that gets the same number later is never taken for it;
- carries MARK in its environment, which only descendants of the worker inherit (processes that set their own title, as
  vLLM's do, lose it);
- was forked without starting a program, which leaves the environment that /proc shows as it was, and has written its
  number to the pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

LOOK_EVERY_S = 0.5
LARGEST_SHARE = 0.02
"""Of one core, that looking may cost; on a machine with very many processes it happens less often."""
GRACE_S = 1.5
"""Between SIGTERM and SIGKILL."""
TRACKER_GRACE_S = 0.5
"""How much longer Python's resource trackers may live: they give back shared memory that the others left."""

_PROC = Path("/proc")
_ALL_IS_WELL = b"q"
_CHUNK_BYTES = 4096


class Process(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number.

    `started` is in clock ticks since boot.
    """

    pid: int
    started: int


class _Seen(NamedTuple):
    process: Process
    parent: int
    is_zombie: bool


def descendants(roots: Collection[int]) -> set[Process]:
    """The living processes below `roots`, themselves not included. Empty where there is no /proc."""
    children: dict[int, list[_Seen]] = {}
    for seen in _all_seen():
        children.setdefault(seen.parent, []).append(seen)
    found: set[Process] = set()
    open_pids = list(roots)
    while open_pids:
        for child in children.pop(open_pids.pop(), ()):
            open_pids.append(child.process.pid)
            if not child.is_zombie:
                found.add(child.process)
    return found


def living(processes: Iterable[Process]) -> set[Process]:
    """Those that still run; a zombie does not."""
    found = set()
    for process in processes:
        seen = _look_at(process.pid)
        if seen is not None and seen.process == process and not seen.is_zombie:
            found.add(process)
    return found


def is_resource_tracker(process: Process) -> bool:
    """Whether it is the process in which Python's multiprocessing notes what to give back.

    It ignores SIGTERM and ends with those it serves.
    """
    try:
        return b"resource_tracker" in (_PROC / str(process.pid) / "cmdline").read_bytes()
    except OSError:
        return False


def end(processes: Iterable[Process], *, grace_s: float = GRACE_S) -> set[Process]:
    """SIGTERM, then SIGKILL after `grace_s`, to each of `processes` and what they start meanwhile.

    Takes at most `grace_s` and one second.

    Returns:
        What still runs: nothing, unless the kernel cannot end it.
    """
    family = living(processes)
    _signal_all(family, signal.SIGTERM)
    family = _wait(family, grace_s)
    _signal_all((process for process in family if not is_resource_tracker(process)), signal.SIGKILL)
    family = _wait(family, TRACKER_GRACE_S)
    _signal_all(family, signal.SIGKILL)
    return _wait(family, TRACKER_GRACE_S)


def watch(owner: int, mark: str, folder: str) -> None:
    """Block until the owner says that all is well, or is gone; then end its tree and remove `folder`."""
    family: set[Process] = set()
    pause_s = 0.0
    while os.getppid() == owner:
        if _something_to_read(pause_s):
            data = os.read(0, _CHUNK_BYTES)
            if not data:
                break
            if _ALL_IS_WELL in data:
                return
            family |= _of_numbers(data)
        before = time.monotonic()
        family = living(family) | _without_me(descendants({owner}))
        pause_s = max(LOOK_EVERY_S, (time.monotonic() - before) / LARGEST_SHARE)
    last_words = _last_words()
    if _ALL_IS_WELL in last_words:
        return
    family = living(family | _of_numbers(last_words))
    family = _without_me(family | _marked(mark) | descendants({process.pid for process in family}))
    if family:
        left = end(family)
        outcome = f"; {len(left)} could not be ended" if left else ""
        with contextlib.suppress(OSError):
            sys.stderr.write(
                f"batchfleet: worker {owner} is gone; ended the {len(family)} processes that it left behind{outcome}\n"
            )
            sys.stderr.flush()
    shutil.rmtree(folder, ignore_errors=True)


def _something_to_read(timeout_s: float) -> bool:
    return bool(select.select([0], [], [], timeout_s)[0])


def _last_words() -> bytes:
    # Only what is there already: if the owner is gone but somebody else still holds the pipe, no end of it will ever
    # come.
    return os.read(0, _CHUNK_BYTES) if _something_to_read(0) else b""


def _of_numbers(data: bytes) -> set[Process]:
    looks = [_look_at(int(number)) for number in data.split() if number.isdigit()]
    return {seen.process for seen in looks if seen is not None}


def _without_me(processes: set[Process]) -> set[Process]:
    return {process for process in processes if process.pid != os.getpid()}


def _marked(mark: str) -> set[Process]:
    found = set()
    for seen in _all_seen():
        with contextlib.suppress(OSError):
            if not seen.is_zombie and mark.encode() in (_PROC / str(seen.process.pid) / "environ").read_bytes():
                found.add(seen.process)
    return found


def _wait(family: set[Process], timeout_s: float) -> set[Process]:
    deadline = time.monotonic() + timeout_s
    while True:
        family = living(family | descendants({process.pid for process in family}))
        if not family or time.monotonic() >= deadline:
            return family
        time.sleep(0.02)


def _signal_all(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                # Looked at after the handle was opened, and signalled through it: no other process can slip in between.
                if living([process]):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def _all_seen() -> list[_Seen]:
    try:
        names = [entry.name for entry in _PROC.iterdir()]
    except OSError:
        return []
    return [seen for name in names if name.isdecimal() and (seen := _look_at(int(name))) is not None]


def _look_at(pid: int) -> _Seen | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may contain anything; see proc_pid_stat(5) for the
    # others.
    fields = text.rpartition(")")[2].split()
    return _Seen(Process(pid, int(fields[19])), parent=int(fields[1]), is_zombie=fields[0] in {"Z", "X"})


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    # At once: there is nothing left to close, and beside busy engines even that would wait for a core.
    os._exit(0)
