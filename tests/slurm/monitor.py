"""Watches a run on a test cluster: how busy engines are, and how many worker jobs Slurm has."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK_S = 0.25
FIRST_PORT = 9400
PORTS = 40
IN_FLIGHT = re.compile(r"^batchfleet_worker_in_flight_questions\{[^}]*\} (\S+)", re.MULTILINE)


class Monitor:
    """From the start of the `with` block to its end.

    Attributes:
        busy_s: Seconds in which an engine had a question, of all workers together; sampled from their own metrics, so
            that it does not depend on Redis.
        up_s: Seconds in which a worker's process was there, from about the begin of its boot on, of all together.
        most_jobs: Most worker jobs that Slurm listed at a time, whatever their state.
        listed: How often it was asked.
    """

    def __init__(self, worker_name: str) -> None:
        self.busy_s = self.up_s = 0.0
        self.most_jobs = 0
        self.listed = 0
        self._name = worker_name
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(look,)) for look in (self._look, self._list)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, look: object) -> None:
        last = time.monotonic()
        while not self._stopping.wait(LOOK_S):
            now = time.monotonic()
            look(now - last)  # type: ignore[operator] # one of the two below
            last = now

    def _look(self, since_s: float) -> None:
        found = [count for port in range(FIRST_PORT, FIRST_PORT + PORTS) if (count := in_flight(port)) is not None]
        self.up_s += since_s * len(found)
        self.busy_s += since_s * sum(count > 0 for count in found)

    def _list(self, _since_s: float) -> None:
        command = ["squeue", "--noheader", "--array", f"--name={self._name}", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
        if done.returncode == 0:
            self.listed += 1
            self.most_jobs = max(self.most_jobs, len(done.stdout.split()))


def in_flight(port: int) -> float | None:
    """Questions in the engine of the worker whose metrics are at that port of this host; None if there is none."""
    with suppress(OSError, ValueError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as reply:
        if found := IN_FLIGHT.findall(reply.read().decode()):
            return sum(map(float, found))
    return None


def kill_node(node: str) -> None:
    """Everything of a node at once, as a cut of its power does: its daemon, and what it runs."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) in {1, os.getpid()}:
            continue
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            ours = f"SLURMD_NODENAME={node}".encode() in (process / "environ").read_bytes().split(b"\0")
            if (
                ours
                or command[:4] == [b"slurmd", b"-D", b"-N", node.encode()]
                or command[1:4] == [b"-D", b"-N", node.encode()]
            ):
                os.kill(int(process.name), signal.SIGKILL)
