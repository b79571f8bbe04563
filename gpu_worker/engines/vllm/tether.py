"""No process of a worker's tree outlives the worker: a watchdog beside it sees to that, however the worker ends."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_worker.engines.vllm import watchdog

log = logging.getLogger(__name__)

MARK_VARIABLE = "TETHERED_TO_BATCHFLEET_WORKER"
"""Not BATCHFLEET_..., which are settings."""
ENDING_S = 5.0
"""Longest that any process of the tree outlives the worker."""


class Tether:
    """Ties every process that this one starts, directly or not, to its own life.

    Linux only; elsewhere it does nothing and says so.

    Attributes:
        folder: For what those processes need only while they live, such as sockets; from `start` to `stop`, and however
            this process ends.
    """

    def __init__(self) -> None:
        self.folder = Path()
        self._mark = secrets.token_hex(16)
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the watchdog. To be called before the first child process."""
        self.folder = Path(tempfile.mkdtemp(prefix="batchfleet-engine-"))
        if not Path("/proc/self/stat").exists():
            log.warning(
                "there is no /proc here: if this worker is killed, look for engine processes that it left behind"
            )
            return
        # For children to inherit; nothing reads it here.
        os.environ[MARK_VARIABLE] = self._mark
        self._spawn()
        os.register_at_fork(after_in_child=self._report_fork)

    def check(self) -> None:
        """Make sure that the watchdog lives; start another if somebody ended it. Cheap."""
        if self._watchdog is not None and self._watchdog.poll() is not None:
            log.warning(
                "the watchdog of this worker was ended (status %d); starting another", self._watchdog.returncode
            )
            self._close_pipe()
            self._spawn()

    def stop(self) -> None:
        """Release: from here on, nothing is ended when this process ends. Safe to call twice."""
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._watchdog is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._pipe(), b"q\n")
        self._close_pipe()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._watchdog.wait(ENDING_S)
        self._watchdog = None
        os.environ.pop(MARK_VARIABLE, None)

    @property
    def pid(self) -> int | None:
        """The watchdog's process id; None if there is none."""
        return self._watchdog.pid if self._watchdog is not None else None

    def _spawn(self) -> None:
        # A group of its own: Ctrl-C in the worker's terminal must not reach the one who cleans up after it. Without
        # MARK, or it would end itself.
        environment = {name: value for name, value in os.environ.items() if name != MARK_VARIABLE}
        command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), self._mark, str(self.folder)]
        self._watchdog = subprocess.Popen(  # noqa: S603 - our own file, run by our own interpreter
            # Not a session of its own: Linux would make that a scheduling group, which was seen to wait ten seconds for
            # a core beside two engines.
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
            env=environment,
        )

    def _report_fork(self) -> None:
        """In a child made by fork alone: report it, and close the pipe.

        If it held on, the watchdog would not notice our end.
        """
        if self._watchdog is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(self._pipe(), b"%d\n" % os.getpid())
            self._close_pipe()

    def _close_pipe(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError):
                self._watchdog.stdin.close()

    def _pipe(self) -> int:
        if self._watchdog is None or self._watchdog.stdin is None:
            raise RuntimeError("the watchdog has no pipe")
        return self._watchdog.stdin.fileno()


def processes_below_me() -> set[watchdog.Process]:
    """Every process that this one started, directly or not."""
    return watchdog.descendants({os.getpid()})


def end(processes: set[watchdog.Process], *, grace_s: float = watchdog.GRACE_S) -> None:
    """End `processes` and what they start meanwhile: SIGTERM, and SIGKILL after `grace_s`. Blocks until they are gone.

    Spares Python's resource trackers: this process still needs its own, and those of others end by themselves.
    """
    left = watchdog.end(
        {process for process in processes if not watchdog.is_resource_tracker(process)}, grace_s=grace_s
    )
    if left:
        log.error("processes that cannot be ended: %s", ", ".join(str(process.pid) for process in sorted(left)))
