"""Child processes that never outlive their parent, and their supervision: restarts, back-off, giving up."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from batchfleet.supervisor import die_with_parent
from wire.backoff import pause_s
from wire.errors import FleetError

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
STEADY_S = 60.0
"""A process that lived this long is healthy again: its next failure counts as its first."""
MOST_FAILURES = 30
BETWEEN_SIGNALS_S = 0.2
MOST_LAST_LINES = 40
"""As far back a program's own word for why it ended is looked for. That an engine did not boot takes some 15 lines."""
NO_USE = 2
"""Exit code of a program that a person must help: restarting it changes nothing."""


class ChildGaveUpError(FleetError):
    """A process of the fleet keeps ending, or says that it cannot work."""


class ChildRefusedError(ChildGaveUpError):
    """It says that it cannot work as it is configured: no use in restarting it, nor the whole fleet."""


def spawn(command: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to the end of `log`.

    On Linux it is killed when this process dies, however it dies.
    """
    program = shutil.which(command[0], path=env.get("PATH")) or command[0]
    command = tied([program, *command[1:]])
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 (our own command lines, never a shell)
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal is for us: we stop the others in order. Not a session of its own: Linux would make
            # that a scheduling group, in which Redis was seen to wait 300 to 600 ms for a core that an engine keeps
            # busy, with every reply.
            process_group=0,
        )


def tied(command: Sequence[str]) -> list[str]:
    """The same command, on Linux killed when this process dies. The program is a path."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *command]


class Supervised:
    """One process that is restarted when it exits, with back-off, a bounded number of times.

    Args:
        name: For people.
        start: Starts it anew.
        log_file: Where its output goes; the last lines are shown when it is given up.
    """

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]], log_file: Path) -> None:
        self.name = name
        self._start = start
        self.log_file = log_file
        self._failures = 0
        self._started = time.monotonic()
        self._restart_at: float | None = None
        self.restarts = 0
        self.process = start()

    @property
    def is_steady(self) -> bool:
        """Whether it runs, and has for long enough to be healthy."""
        return self.process.poll() is None and time.monotonic() - self._started > STEADY_S

    def try_again(self) -> None:
        """Have the next `check` start a process that was given up, once: unless it becomes steady, that was it."""
        if self.process.poll() is not None:
            self._failures = max(self._failures, MOST_FAILURES)
            self._restart_at = time.monotonic()

    def check(self) -> None:
        """Start the process again if it ended and its pause is over.

        Raises:
            ChildGaveUpError: It has failed too often, or (`ChildRefusedError`) cannot work.
        """
        code = self.process.poll()
        if code is None:
            return
        if self._restart_at is None:
            if time.monotonic() - self._started > STEADY_S:
                self._failures = 0
            self._failures += 1
            if code == NO_USE or self._failures > MOST_FAILURES:
                times = f", {self._failures} times in a row" if self._failures > 1 else ""
                msg = f"{self.name} {_ending(code)}{times}:\n{last_lines(self.log_file)}"
                raise ChildRefusedError(msg) if code == NO_USE else ChildGaveUpError(msg)
            wait_s = pause_s(self._failures, first_s=FIRST_BACKOFF_S, longest_s=LONGEST_BACKOFF_S)
            log.warning("%s %s; restarting it in %.1f s", self.name, _ending(code), wait_s)
            self._restart_at = time.monotonic() + wait_s
        elif time.monotonic() >= self._restart_at:
            self._restart_at = None
            self._started = time.monotonic()
            self.restarts += 1
            self.process = self._start()


def send_sigterm(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to all that run, a moment before `stop_all` sends the second one."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    if running:
        # Two that come at once count as one.
        time.sleep(BETWEEN_SIGNALS_S)


def stop_all(processes: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that are still there after `grace_s` seconds."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            if grace_s > 0:
                log.warning("process %d did not end within %.0f s and is killed", process.pid, grace_s)
            process.kill()
            process.wait()


def keep_short(log_file: Path, most_bytes: int) -> None:
    """Begin a log of `spawn` anew if it is longer; the one before stays as NAME.1.

    What is written during the copy may be lost.
    """
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > most_bytes:
            shutil.copyfile(log_file, log_file.with_name(f"{log_file.name}.1"))
            # It is open for appending, so that the next line goes to its new end.
            os.truncate(log_file, 0)


def last_lines(path: Path, count: int = 12) -> str:
    """The end of a log, indented: from where the program itself said why it ends, if it did.

    If it did not, these are the last `count` lines.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()[-MOST_LAST_LINES:]
    except OSError:
        lines = []
    reasons = [
        number
        for number, line in enumerate(lines)
        if line.startswith("batchfleet: ") and not line.startswith("batchfleet: warning: ")
    ]
    lines = lines[reasons[-1] :] if reasons else lines[-count:]
    return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code}"
