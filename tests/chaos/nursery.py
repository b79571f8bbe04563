"""Starts programs of the fleet by forking a process that has imported them already.

Each program is a process of its own all the same, with its own session, environment and log, and is stopped and killed
for real. Only the second that Python takes to import what a program needs is saved: with ten programs and as many
restarts that was most of what a schedule cost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import TracebackType
from typing import Self

# What a worker imports only when it needs it.
import uvloop  # noqa: F401 (only to have it)

from batchfleet.cli.main import main
from batchfleet.supervisor.die_with_parent import die_with
from tests.chaos.namespaces import enter
from tests.chaos.wrong_clock import shift

FORKING = multiprocessing.get_context("fork")
ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Life:
    """What to start: `batchfleet ARGUMENTS`, its output to the end of `log`.

    Attributes:
        clock_wrong_by_s: In seconds; how much later its clock is.
        place: Path of the network namespace in which it lives; empty for ours.
    """

    arguments: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    clock_wrong_by_s: float = 0.0
    place: str = ""


class Child:
    """A program that was started; used as a `subprocess.Popen`."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        # Readable once the process has ended, whose child it may be.
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._ended, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            self.returncode = self._nursery.code_of(self.pid)
            os.close(self._ended)
        return self.returncode


class Nursery:
    """Used in a `with` statement, at whose end all its children must have ended.

    Enter it while this process has one thread.
    """

    def __enter__(self) -> Self:
        self._ours, theirs = FORKING.Pipe()
        self._process = FORKING.Process(target=_serve, args=(theirs, self._ours), name="nursery")
        self._process.start()
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ours.close()
        self._process.join(ENDS_WITHIN_S)
        self._process.kill()
        self._process.join()

    def start(self, life: Life) -> Child:
        self._ours.send(life)
        return Child(self._ours.recv(), self)

    def code_of(self, pid: int) -> int:
        """Exit code of a child that has ended, or minus the signal that ended it."""
        self._ours.send(pid)
        code: int = self._ours.recv()
        return code


def _serve(requests: Connection, others_end: Connection) -> None:
    """The nursery's own life: it serves one request at a time, until nobody is left to ask.

    A request is a `Life` to begin, or the pid of one that ended.
    """
    die_with(os.getppid())
    others_end.close()
    # What is here stays, and is not copied to the children by the marks of the collector.
    gc.collect()
    gc.freeze()
    children: dict[int, ForkProcess] = {}
    with contextlib.suppress(EOFError):
        while True:
            asked: Life | int = requests.recv()
            if isinstance(asked, int):
                child = children.pop(asked)
                child.join()
                requests.send(child.exitcode)
                child.close()
            else:
                child = FORKING.Process(target=_live, args=(asked, requests))
                child.start()
                children[child.pid or 0] = child
                requests.send(child.pid)


def _live(life: Life, nurserys: Connection) -> None:
    """Become the program: whatever a fresh Python would find, this finds."""
    os.setsid()
    die_with(os.getppid())
    nurserys.close()
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(life.environ)
    sys.argv = ["batchfleet", *life.arguments]
    faulthandler.enable()
    gc.unfreeze()
    if life.place:
        enter(life.place)
    if life.clock_wrong_by_s:
        shift(life.clock_wrong_by_s)
    sys.exit(main(life.arguments))
