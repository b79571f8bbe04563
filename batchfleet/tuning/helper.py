"""A process that helps to measure: it gets ready, waits for the word, does one thing, and says how it went.

Both ends are here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchfleet.settings.load import load_settings
from batchfleet.settings.mask import child_environment, to_file_text
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.processes import last_lines
from wire.errors import FleetError

TREE = Path(__file__).parents[2]


class BenchFailedError(FleetError):
    """A process of the benchmark ended or did not get ready; there is no figure to show."""


class Helper:
    """A process that gets ready, waits for `go`, does one thing and says how it went.

    It must not outlive a `with` block.

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
                command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            # The end of its input lets it go.
            self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> dict[str, Any]:
        """Returns what it says of itself."""
        return self._read()

    def go(self) -> None:
        self.tell("go")

    def tell(self, line: str) -> None:
        """Give it something to do."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for what it has to say. It lives on, so that it can be looked at, until the `with` block ends."""
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            msg = f"a process of the benchmark ended:\n{last_lines(self._log)}"
            raise BenchFailedError(msg)
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
