"""A process that helps to measure: it gets ready, waits for the word, does one thing, and says how it went.

Both ends are here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchfleet.settings.load import load_settings
from batchfleet.settings.mask import child_environment, to_file_text
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.processes import last_lines, tied
from wire.errors import FleetError

TREE = Path(__file__).parents[2]
ENDING_S = 60.0
"""Longest that a process is waited for which has been let go."""


class BenchFailedError(FleetError):
    """A process of the benchmark ended or did not get ready; there is no figure to show."""


class TooSlowError(BenchFailedError):
    """It had nothing to say in the time that it had, and was ended."""


class Helper:
    """A process that gets ready, waits for `go`, does one thing and says how it went.

    It outlives neither a `with` block nor, on Linux, this process.

    Args:
        folder: For its log; what `write_config` wrote there is given to it, unless `with_config` is off.
        python: Which one runs it.
    """

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        env: Mapping[str, str],
        folder: Path,
        *,
        python: Path = Path(sys.executable),
        with_config: bool = True,
    ) -> None:
        self._log = folder / f"{module}.log"
        command = [
            str(python),
            "-m",
            module,
            *arguments,
            *(["--config", str(config_in(folder))] if with_config else []),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own)
                tied(command), env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self.let_go()
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def let_go(self) -> None:
        """Have it end, by the end of its input. Not waited for."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self, most_s: float | None = None) -> dict[str, Any]:
        """Returns what it says of itself.

        Raises:
            TooSlowError: It was not ready after `most_s`, and has been ended.
        """
        return self._read(most_s)

    def go(self) -> None:
        self.tell("go")

    def tell(self, line: str) -> None:
        """Give it something to do."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def result(self, most_s: float | None = None) -> dict[str, Any]:
        """Wait for what it has to say. It lives on, so that it can be looked at, until the `with` block ends.

        Raises:
            TooSlowError: It said nothing for `most_s`, and has been ended.
        """
        return self._read(most_s)

    def _read(self, most_s: float | None) -> dict[str, Any]:
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = None if most_s is None else threading.Timer(max(0.0, most_s), end)
        if timer is not None:
            timer.start()
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if timer is not None:
            timer.cancel()
        if not line and is_late.is_set():
            raise TooSlowError(f"a process of the benchmark was not done after {most_s:.0f} s and was ended")
        if not line:
            raise BenchFailedError(f"a process of the benchmark ended:\n{last_lines(self._log)}")
        found: dict[str, Any] = json.loads(line)
        return found


def environment(settings: Settings) -> dict[str, str]:
    """For processes that are given the file of `write_config`.

    The packages may lie in a tree on PYTHONPATH instead of being installed.
    """
    env = child_environment(settings, os.environ)
    return env | {"PYTHONPATH": os.pathsep.join(filter(None, [str(TREE), env.get("PYTHONPATH", "")]))}


def config_in(folder: Path) -> Path:
    return folder / "fleet.yaml"


def write_config(folder: Path, settings: Settings) -> None:
    config_in(folder).write_text(to_file_text(settings), encoding="utf-8")


def load(config: str, redis_url: str | None = None) -> Settings:
    return load_settings(Path(config), {}, {"redis.url": redis_url}).settings


def wait_for_go() -> None:
    """Say that we are ready, and wait. Nobody there any more: end."""
    print(json.dumps({"ready": True}), flush=True)
    if not sys.stdin.readline():
        sys.exit(3)


def tell(result: Mapping[str, object]) -> None:
    """Say how it went, and stay until that was heard: memory and CPU time of a process that ended cannot be read."""
    print(json.dumps(result), flush=True)
    sys.stdin.readline()
