"""The engine's process is forked from one that has imported vLLM already, while the worker imports it itself.

With spawn, which a worker with threads needs otherwise, the engine's process begins to import vLLM only when the worker
has done so: 17 of the 62 s of a boot on an H200's host.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from gpu_worker.engines.vllm import library

_NVIDIA = Path("/dev/nvidiactl")


class _Process(ForkServerProcess):
    """Has the environment of whoever started it, which vLLM changes, and not that of the server."""

    def start(self) -> None:
        self._environ = dict(os.environ)
        super().start()

    def run(self) -> None:
        # No more than has changed: the title of a process can be set while its first variables are where they were.
        os.environ.update({name: value for name, value in self._environ.items() if os.environ.get(name) != value})
        super().run()


class Context(ForkServerContext):
    """What vLLM starts the engine's process with."""

    Process = _Process


def start() -> None:
    """Start the server, which imports vLLM by itself; to be called before vLLM is imported here.

    Only for NVIDIA GPUs: vLLM for CPUs preloads libraries into its processes, for which they must be new programs.
    """
    if _NVIDIA.exists() and not library.IS_START_METHOD_CHOSEN:
        forkserver.set_forkserver_preload(library.PRELOADED)
        forkserver.ensure_running()


def use() -> None:
    """Have vLLM, which is imported now, fork from the server if there is one."""
    if _NVIDIA.exists() and not library.IS_START_METHOD_CHOSEN and not library.is_for_cpu():
        library.start_engines_with(Context())
