"""What all tests share: a real Redis of their own, and builders."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
from hypothesis import settings

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from tests.isolation import isolate
from tests.processes import PATIENCE_S, unmeasured

isolate(os.environ)

settings.register_profile("batchfleet", deadline=None, print_blob=True)
settings.load_profile("batchfleet")

# Programs inherit what is ignored where they are started: Ctrl-C in the background of a shell, a lost terminal below
# nohup. Those that tests start should hear of both; what has a handler here is not ignored there. Only a main thread
# may set one.
with contextlib.suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


SERVER_FOLDERS = {"integration", "hostile"}
OF_NO_SERVER = {
    "test_bench",
    "test_boot_report",
    "test_engine_kinds",
    "test_engine_suite",
    "test_gateway_connections",
    "test_gateway_page",
    "test_numpy_vectors",
    "test_tune",
}
"""Modules in those folders that are about something else than what a server does."""
SERVER_STORIES = {"test_answering_a_file", "test_emptied_redis", "test_forgotten_runs", "test_resume"}
"""What happens to whole fleets when the server is killed, emptied, away or full; other stories send it the same."""


LONG = {"test_bench", "test_docs_commands", "test_python_docs", "test_redis_users", "test_tune"}
"""Modules whose tests take longest, which are begun first: what begins last would have one process to itself."""


UNMEASURED = {
    "test_all_fail_alike",
    "test_answering_a_file",
    "test_autoscale",
    "test_back_pressure",
    "test_ceilings",
    "test_failover",
    "test_forgotten_runs",
    "test_full_redis",
    "test_full_temporary_folder",
    "test_gateway_online",
    "test_ill_servers",
    "test_lifecycle",
    "test_long_generation",
    "test_quarantine",
    "test_resume",
}
"""Modules whose fleets are not measured for coverage, which doubles their time: they run the same code as others."""


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark what is worth running on several versions of the server: every script and command, and every attack.

    And spread what is long over the processes, each of which begins with an equal part of all tests (worksteal).
    """
    for item in items:
        name = item.path.stem
        if name in SERVER_STORIES or (item.path.parent.name in SERVER_FOLDERS and name not in OF_NO_SERVER):
            item.add_marker(pytest.mark.server)
    yield
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.path.stem in LONG]
    others = [item for item in items if item.path.stem not in LONG]
    bounds = [len(others) * number // processes for number in range(processes + 1)]
    items[:] = itertools.chain.from_iterable(
        long[number::processes] + others[start:end] for number, (start, end) in enumerate(itertools.pairwise(bounds))
    )


@pytest.fixture(autouse=True)
def _measured_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As UNMEASURED says; the test itself is measured."""
    if request.path.stem in UNMEASURED:
        for name in os.environ.keys() - unmeasured(os.environ).keys():
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that is run in this process sends the logs to its stderr, which is closed after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    # Pytest's own come and go with each phase of a test.
    ours = [handler for handler in root.handlers if type(handler) is logging.StreamHandler and handler not in handlers]
    for handler in ours:
        root.removeHandler(handler)
    if ours:
        root.setLevel(level)


@pytest.fixture
def redis_server() -> Iterator[EmbeddedServer]:
    """A redis-server with its append-only file, of this test alone."""
    # Not tmp_path: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="bf-test-"))
    server = EmbeddedServer(folder)
    server.start()
    yield server
    assert server.process is not None
    stop_all([server.process], grace_s=5)
    shutil.rmtree(folder)


@pytest.fixture
def client(redis_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of that server."""
    with redis.Redis.from_url(redis_server.url, protocol=2, socket_timeout=PATIENCE_S) as connected:
        yield connected


@pytest.fixture
async def aclient(redis_server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of the test's server."""
    connected = redis.asyncio.Redis.from_url(redis_server.url, protocol=2, socket_timeout=PATIENCE_S)
    yield connected
    await connected.aclose()
