"""500 questions at vLLM's own server, which is killed in the middle.

It is started again with the same key, another key, or another model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.integration import tiny_model
from tests.integration.vllm_server import VllmServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(4 * 1200)]

QUESTIONS = 500
BEFORE = 50
BOOT_S = 1200.0
FLAGS = [
    f"--{name.replace('_', '-')}={value}" for name, value in tiny_model.ENGINE_ARGUMENTS.items() if value is not True
]


class Servers:
    """One after the other on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: VllmServer | None = None
        self.port = 0

    def start(self, key: str, model: str) -> None:
        flags = (*FLAGS, "--enforce-eager", f"--served-model-name={model}", f"--api-key={key}")
        self._running = VllmServer(tiny_model.cached(), self._folder / "server.log", *flags, port=self.port)
        self._running.__enter__()
        self.port = self._running.port

    def kill(self) -> None:
        """With all of its processes."""
        if self._running is not None:
            self._running.kill()
        self._running = None


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """None runs yet."""
    servers = Servers(tmp_path)
    yield servers
    servers.kill()


class Run:
    """`batchfleet run` of QUESTIONS questions, begun as often as it takes."""

    def __init__(self, folder: Path, redis_url: str, port: int) -> None:
        self.answers = folder / "answers.jsonl"
        self.ids = write_questions(folder / "questions.jsonl", QUESTIONS)
        self._command = ["run", str(folder / "questions.jsonl"), "-o", str(self.answers), "--engine", "openai"]
        server = {
            "BOOT_LOCAL": "false",
            "SERVER": "127.0.0.1",
            "PORT": str(port),
            "SERVER_STARTUP_TIMEOUT": str(BOOT_S),
        }
        sampling = {"MODEL_GENERATOR_SETTINGS_MODEL": "tiny", "MAX_TOKENS": "64"}
        settings = {f"BATCHFLEET_{name}": value for name, value in {**server, **sampling}.items()}
        self.fleet = Processes(redis_url, folder, settings)

    def start(self, name: str, key: str) -> None:
        self.fleet.start(name, *self._command, API_KEY=key)

    def wait_for_lines(self, count: int) -> None:
        wait_until(lambda: lines_in(self.answers) >= count, f"{count} answers", BOOT_S)

    def wait_until_waiting(self) -> None:
        wait_until(lambda: _worker(self.fleet).get("state") == "waiting", "a worker that waits", BOOT_S)
        assert lines_in(self.answers) < QUESTIONS

    def check(self) -> None:
        """One answer to each question."""
        lines = read_answers(self.answers)
        assert sorted(line["id"] for line in lines) == sorted(self.ids)
        assert {line["status"] for line in lines} == {"answered"}


@pytest.fixture
def run(tmp_path: Path, redis_server: EmbeddedServer, servers: Servers) -> Iterator[Run]:
    """Not begun; the server boots."""
    servers.start("one", "tiny")
    run = Run(tmp_path, redis_server.url, servers.port)
    with run.fleet:
        yield run


def test_a_server_is_restarted_and_changes_its_key(run: Run, servers: Servers) -> None:
    """Another key ends the run with exit code 2, and the same command with that key continues it.

    A restart alone is waited for.
    """
    run.start("run", "one")
    run.wait_for_lines(BEFORE)
    servers.kill()
    run.wait_until_waiting()
    servers.start("another", "tiny")
    assert run.fleet.finish("run", BOOT_S) == 2
    assert "refuses the API key (HTTP 401)" in run.fleet.log("run")

    run.start("resumed", "another")
    run.wait_for_lines(3 * BEFORE)
    servers.kill()
    run.wait_until_waiting()
    servers.start("another", "tiny")
    assert run.fleet.finish("resumed", BOOT_S) == 0
    run.check()


def test_a_server_changes_its_model(run: Run, servers: Servers) -> None:
    """The run ends with exit code 2, and the same command continues it once the model is back."""
    run.start("run", "one")
    run.wait_for_lines(BEFORE)
    servers.kill()
    run.wait_until_waiting()
    servers.start("one", "other")
    assert run.fleet.finish("run", BOOT_S) == 2
    assert "does not serve the model any more (HTTP 404)" in run.fleet.log("run")

    servers.kill()
    servers.start("one", "tiny")
    run.start("resumed", "one")
    assert run.fleet.finish("resumed", BOOT_S) == 0
    run.check()


def _worker(fleet: Processes) -> dict[str, Any]:
    workers = json.loads(batchfleet("status", "--json", "--redis", fleet.url).stdout)["workers"]
    return dict(workers[0]) if workers else {}
