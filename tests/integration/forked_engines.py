"""Engines of a test's own process are forked from one that has imported vLLM, so that only the first waits for that.

A worker does so where there is an NVIDIA GPU. On CPUs it does not, for the sake of libraries that new programs only can
have preloaded, which make large models faster and tiny ones no different.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from typing import Any

import pytest

from gpu_worker.engines.vllm import fork_server, library
from tests.integration.tiny_model import ON_A_GPU


class _Output:
    """This process's stderr, for whom it is sent to."""

    fd = 2

    def __getstate__(self) -> Any:  # noqa: ANN401 (a handle, which has no public type)
        return DupFd(self.fd)

    def __setstate__(self, handle: Any) -> None:  # noqa: ANN401
        self.fd = handle.detach()


class _Process(fork_server._Process):
    """Writes where the engine that starts it listens, not where the first of them did."""

    def start(self) -> None:
        self._output = _Output()
        super().start()

    def run(self) -> None:
        for fd in (1, 2):
            os.dup2(self._output.fd, fd)
        super().run()


class _Context(fork_server.Context):
    Process = _Process


@pytest.fixture(scope="session")
def forked_engines() -> Iterator[None]:
    """As the head of this file says; without vLLM, nothing."""
    if ON_A_GPU or library.IS_START_METHOD_CHOSEN or library.installed_version() is None:
        yield
        return
    forkserver.set_forkserver_preload(library.PRELOADED)
    forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as patch:
        # When vLLM is imported is for the engine to say: some variables have to be set before.
        patch.setattr(fork_server, "use", lambda: library.start_engines_with(_Context()))
        yield
