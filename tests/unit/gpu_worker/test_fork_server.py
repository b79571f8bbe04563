"""What the engine's process is forked from."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gpu_worker.engines.vllm import fork_server, library

PRELOADED = "mailbox"
"""A module that nothing else here imports."""


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As if this host had one; the server that is started has ended afterwards."""
    monkeypatch.setattr(fork_server, "_NVIDIA", tmp_path)
    monkeypatch.setattr(library, "PRELOADED", [PRELOADED])
    monkeypatch.setattr(library, "IS_START_METHOD_CHOSEN", False)
    server = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", server)
    for name in ("ensure_running", "set_forkserver_preload", "connect_to_new_process"):
        monkeypatch.setattr(forkserver, name, getattr(server, name))
    yield
    server._stop()  # type: ignore[attr-defined]


def tell(to: Connection) -> None:
    """What a child finds."""
    to.send((PRELOADED in sys.modules, os.environ.get("BEFORE_THE_ENGINE"), os.getppid()))


@pytest.mark.usefixtures("a_gpu")
def test_a_process_has_the_modules_of_the_server_and_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM writes into the environment after the server was started reaches its engine."""
    fork_server.start()
    monkeypatch.setenv("BEFORE_THE_ENGINE", "set")
    assert PRELOADED not in sys.modules
    heard, told = multiprocessing.Pipe(duplex=False)

    process = fork_server.Context().Process(target=tell, args=(told,))
    process.start()
    told.close()
    is_preloaded, found, parent = heard.recv()
    process.join()

    assert (is_preloaded, found) == (True, "set")
    assert parent != os.getpid()


@pytest.mark.usefixtures("a_gpu")
def test_a_start_method_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is started then."""
    monkeypatch.setattr(library, "IS_START_METHOD_CHOSEN", True)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: pytest.fail("a server was started"))

    fork_server.start()
    fork_server.use()
