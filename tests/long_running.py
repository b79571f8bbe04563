"""A user's long-running fleet: the folder of an `up`, and what the commands say of it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import Processes, batchfleet

CLOCKED = {"BATCHFLEET_STUB_STEP_S": "0.01", "BATCHFLEET_STUB_MIN_TOKENS": "10", "BATCHFLEET_STUB_MAX_TOKENS": "40"}


@dataclass(frozen=True)
class Home:
    """A user's state folder, and what `up` needs to be found there."""

    folder: Path

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            batchfleet("status", "--redis", self.url, "--json").stdout or '{"workers": [], "batchers": []}'
        )
        return found

    def running(self) -> int:
        return sum(worker["state"] == "running" for worker in self.status()["workers"])

    def scale(self, workers: int) -> subprocess.CompletedProcess[str]:
        return batchfleet("scale", str(workers), "--state", str(self.folder))

    def processes(self) -> list[int]:
        """Ids of the processes that were started with this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes()
                    state = (entry / "stat").read_text(errors="replace").rpartition(") ")[2][:1]
                except OSError:
                    continue
                if str(self.folder).encode() in words and state != "Z":
                    found.append(int(entry.name))
        return found


def up(machine: Processes, home: Home, *arguments: str, name: str = "up", **environ: str) -> subprocess.Popen[bytes]:
    """Start `batchfleet up` with the stub."""
    # An empty URL is as good as none: the fleet has a Redis of its own.
    return machine.start(
        name, "up", "--engine", "stub", "--state", str(home.folder), *arguments, REDIS_URL="", **environ
    )
