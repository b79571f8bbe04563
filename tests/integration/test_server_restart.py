"""500 questions at vLLM's own server, which is killed and started anew in the middle, with the same key, another key, another model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchfleet.supervisor.private_server import PrivateRedis
from tests.integration import tiny_model
from tests.integration.vllm_server import VllmServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUESTIONS = 500
BEFORE = 50
BOOT_S = 300.0
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


@pytest.mark.parametrize(
    ("key", "model"), [("one", "tiny"), ("another", "tiny"), ("one", "other")], ids=["same", "key", "model"]
)
def test_nothing_is_lost(tmp_path: Path, redis_server: PrivateRedis, servers: Servers, key: str, model: str) -> None:
    """The run waits for the server, and continues; or ends with exit code 2 and the reason, and the same command, corrected, continues it."""
    servers.start("one", "tiny")
    ids = write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    answers = tmp_path / "answers.jsonl"
    settings = {
        "BATCHFLEET_BOOT_LOCAL": "false",
        "BATCHFLEET_SERVER": "127.0.0.1",
        "BATCHFLEET_PORT": str(servers.port),
    }
    settings |= {
        "BATCHFLEET_MODEL_GENERATOR_SETTINGS_MODEL": "tiny",
        "BATCHFLEET_API_KEY": "one",
        "BATCHFLEET_MAX_TOKENS": "64",
    }
    command = ["run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "openai"]
    with Processes(redis_server.url, tmp_path, settings) as fleet:
        fleet.start("run", *command)
        wait_until(lambda: lines_in(answers) >= BEFORE, "the first answers", BOOT_S)
        servers.kill()
        wait_until(lambda: _worker(fleet).get("state") == "waiting", "a worker that waits")
        assert lines_in(answers) < QUESTIONS
        servers.start(key, model)

        code = fleet.finish("run", BOOT_S)
        print(fleet.log("run"))
        if key == "one" and model == "tiny":
            assert code == 0
        else:
            assert code == 2
            assert ("refuses the API key" if key != "one" else "does not serve the model any more") in fleet.log("run")
            servers.kill()
            servers.start("one", "tiny")
            fleet.start("resumed", *command)
            assert fleet.finish("resumed", BOOT_S) == 0
    lines = read_answers(answers)
    assert sorted(line["id"] for line in lines) == sorted(ids)
    assert {line["status"] for line in lines} == {"answered"}


def _worker(fleet: Processes) -> dict[str, Any]:
    workers = json.loads(batchfleet("status", "--json", "--redis", fleet.url).stdout)["workers"]
    return dict(workers[0]) if workers else {}
