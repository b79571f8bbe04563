"""Real processes of a fleet, to be started, watched, stopped and killed by tests."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchfleet.supervisor.processes import spawn, stop_all

ROOT = Path(__file__).parent.parent
TREES = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
"""PYTHONPATH for programs of this tree.

What lies there already may be all that this Python has of vLLM or Redis' client.
"""
PATIENCE_S = 300.0
"""After this a test that waits is taken to hang. Not a measure of anything: the machine may be busy with other work."""


def wait_until(condition: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> float:
    """Wait for a condition, looking often; returns how long it took, in seconds."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < within_s, f"{what}: not within {within_s:g} s"
        time.sleep(0.01)
    return time.monotonic() - began


def unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a process is not measured for coverage, for those whom a Ctrl-C is to end.

    One that arrives while coverage holds its lock, which all threads take, leaves it held for ever.
    """
    return {name: value for name, value in environ.items() if not name.startswith("COVERAGE_PROCESS_")}


@dataclass
class Processes:
    """Processes of one fleet on one Redis, ended at the end of the `with` block.

    On failure their logs are shown.
    """

    url: str
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self.started.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        stop_all(list(self.started.values()), grace_s=20)
        if error is not None:
            for name in self.started:
                print(f"----- {name}\n{self.log(name)[-4000:]}")

    def start(self, name: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start `batchfleet ARGUMENTS`. `environ`: further settings, without the BATCHFLEET_ prefix."""
        env = self.environment(**environ)
        process = spawn([sys.executable, "-m", "batchfleet", *arguments], env, self.folder / f"{name}.log")
        self.started[name] = process
        return process

    def environment(self, **environ: str) -> dict[str, str]:
        """Of a process; `environ` as for `start`."""
        env = {**os.environ, "PYTHONPATH": TREES, "BATCHFLEET_REDIS_URL": self.url, **self.environ}
        return env | {f"BATCHFLEET_{key}": value for key, value in environ.items()}

    def batcher(self, name: str = "batcher", **environ: str) -> subprocess.Popen[bytes]:
        return self.start(name, "batcher", **environ)

    def worker(self, name: str = "worker", **environ: str) -> subprocess.Popen[bytes]:
        return self.start(name, "worker", "--engine", "stub", **environ)

    def gateway(self, *flags: str, name: str = "gateway", **environ: str) -> str:
        """Start a gateway on a free port, and wait until it listens; returns its address, such as http://127.0.0.1:1."""
        arguments = ["gateway", "--listen", "127.0.0.1:0", "--data", str(self.folder / "gateway-data"), *flags]
        process = self.start(name, *arguments, **environ)
        listens = re.compile(r"listening on (\S+)/v1")
        wait_until(lambda: process.poll() is not None or listens.search(self.log(name)), f"{name} listens")
        found = listens.search(self.log(name))
        assert found, f"{name} ended:\n{self.log(name)}"
        return found[1]

    def submit(
        self, questions: Path, answers: Path, *options: str, name: str = "producer", **environ: str
    ) -> subprocess.Popen[bytes]:
        arguments = ["submit", str(questions), "-o", str(answers), "--model", "stub", *options]
        return self.start(name, *arguments, **environ)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def finish(self, name: str, within_s: float = PATIENCE_S) -> int:
        """Wait for a process to end by itself; returns its exit code."""
        return self.started[name].wait(within_s)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process that is still running. After SIGKILL it is gone, with its locks."""
        assert self.started[name].poll() is None, f"{name} ended by itself:\n{self.log(name)}"
        self.started[name].send_signal(number)
        if number == signal.SIGKILL:
            self.started[name].wait(PATIENCE_S)


def batchfleet(
    *arguments: str, environ: Mapping[str, str] | None = None, stdin: str | None = None, timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, as a user would."""
    env = {**os.environ, "PYTHONPATH": TREES, **(environ or {})}
    command = [sys.executable, "-m", "batchfleet", *arguments]
    return subprocess.run(  # noqa: S603 (ours)
        command, env=env, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def write_questions(path: Path, count: int, prefix: str = "q") -> list[str]:
    """Write `count` different questions; returns their ids, in order."""
    ids = [f"{prefix}{number}" for number in range(count)]
    lines = (
        json.dumps({"id": name, "question": f"What is {number} + {number}? Question {name}."})
        for number, name in enumerate(ids)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return ids


def read_answers(path: Path) -> list[dict[str, Any]]:
    """The lines of an answers file; none if it is not there yet."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def lines_in(path: Path) -> int:
    """How many lines an answers file has by now."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
