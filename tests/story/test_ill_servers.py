"""A run at a server that goes away, asks for time, revokes the key or serves another model.

Nothing is lost, and people are told.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.eventually import until
from tests.processes import Processes, batchfleet, lines_in, read_answers, write_questions
from tests.unit.scripted_server import MODEL, Asked, Reply, ScriptedServer, a_text, an_error

QUESTIONS = 300
BEFORE = 100
HELD_AT = 200
"""So many are answered before something happens to the server, which so finds the run on its way."""
SETTINGS = {
    "BATCHFLEET_LEASES_BATCH_S": "60",  # A busy machine is to let none lapse.
    "BATCHFLEET_BOOT_LOCAL": "false",
    "BATCHFLEET_SERVER": "127.0.0.1",
    "BATCHFLEET_MODEL_GENERATOR_SETTINGS_MODEL": MODEL,
}


class Server(ScriptedServer):
    """Answers, slowly enough to be caught at it, as long as it has no `fault`."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self._fault: Reply | None = None
        self._is_held = True
        self.answered: list[str] = []

    @property
    def fault(self) -> Reply | None:
        """What all are given from now on."""
        return self._fault

    @fault.setter
    def fault(self, reply: Reply | None) -> None:
        self._fault = reply
        self._is_held = False

    async def close(self) -> None:
        """Go away, with what is open."""
        self._is_held = False
        await super().close()

    async def _answer(self, asked: Asked) -> Reply:
        await asyncio.sleep(0.01)
        while self._is_held and len(self.answered) >= HELD_AT:
            await asyncio.sleep(0.01)
        if self.fault is not None:
            return self.fault
        self.answered.append(asked.body["prompt"])
        return a_text(f"you said {asked.body['prompt']}")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """It listens."""
    async with Server() as server:
        yield server


class Run:
    """`batchfleet run`, or a fleet and `batchfleet submit`, of QUESTIONS questions."""

    def __init__(self, folder: Path, redis_url: str, server: Server) -> None:
        self.answers = folder / "answers.jsonl"
        self.ids = write_questions(folder / "questions.jsonl", QUESTIONS)
        self.fleet = Processes(redis_url, folder, {**SETTINGS, "BATCHFLEET_PORT": str(server.port)})
        self.command = ["run", str(folder / "questions.jsonl"), "-o", str(self.answers), "--engine", "openai"]

    async def end(self, name: str) -> int:
        return await asyncio.to_thread(self.fleet.finish, name)

    async def until_some_are_answered(self) -> None:
        await until(lambda: lines_in(self.answers) >= BEFORE)

    def check(self) -> None:
        """Every question has one answer, which is to it."""
        lines = read_answers(self.answers)
        assert sorted(line["id"] for line in lines) == sorted(self.ids)
        assert {line["status"] for line in lines} == {"answered"}
        assert all(line["text"].endswith(f"Question {line['id']}.") for line in lines)


@pytest.fixture
def run(tmp_path: Path, redis_server: EmbeddedServer, server: Server) -> Run:
    """Not started yet."""
    return Run(tmp_path, redis_server.url, server)


async def test_a_server_that_is_restarted_costs_nothing(run: Run, server: Server) -> None:
    """While it is away, the worker is `waiting` in `status`, with the reason; afterwards the run goes on by itself."""
    with run.fleet as fleet:
        fleet.start("run", *run.command)
        await run.until_some_are_answered()
        await server.close()
        worker = await _worker(fleet, lambda worker: worker["state"] == "waiting")
        assert "connection refused: nothing listens there" in worker["waits_for"]

        await server.listen()

        assert await run.end("run") == 0
    run.check()
    assert {line["attempts"] for line in read_answers(run.answers)} == {1}


async def test_a_server_that_asks_for_time_gets_it(run: Run, server: Server) -> None:
    """Progress says so in the server's words; what the worker holds goes back to the queue, and nothing is sent."""
    with run.fleet as fleet:
        fleet.start("run", *run.command)
        await run.until_some_are_answered()
        server.fault = an_error(429, "slow down", headers={"retry-after": "3600"})
        await until(
            lambda: "waiting: the server asks for 3600 s (HTTP 429): slow down; asked again in 3" in fleet.log("run")
        )
        await _worker(fleet, lambda worker: worker["in_flight"] == 0)
        asked = len(server.asked)

        fleet.kill("run", signal.SIGINT)
        assert await run.end("run") == 130
        assert len(server.asked) == asked
        server.fault = None
        fleet.start("resumed", *run.command)
        assert await run.end("resumed") == 0
    run.check()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (an_error(401, "Your key was revoked"), "refuses the API key (HTTP 401): Your key was revoked"),
        (an_error(404, "The model does not exist", code="model_not_found"), "does not serve the model any more"),
        (Reply(308, "", {"location": "https://else.where/v1"}), "redirects to https://else.where/v1 (HTTP 308)"),
    ],
    ids=["key", "model", "redirect"],
)
async def test_a_server_that_cannot_be_used_ends_the_run(run: Run, server: Server, fault: Reply, told: str) -> None:
    """With exit code 2 and the reason, at once; the same command answers the rest."""
    with run.fleet as fleet:
        fleet.start("run", *run.command)
        await run.until_some_are_answered()
        server.fault = fault
        assert await run.end("run") == 2
        assert told in fleet.log("run")
        assert "to resume:   " in fleet.log("run")

        server.fault = None
        fleet.start("resumed", *run.command)
        assert await run.end("resumed") == 0
    run.check()


async def test_a_worker_of_its_own_ends_too(run: Run, server: Server) -> None:
    """With exit code 2; what it held is answered by the next worker, and `status` says why it ended."""
    with run.fleet as fleet:
        fleet.batcher()
        fleet.start("worker", "worker", "--engine", "openai")
        fleet.start("producer", "submit", *run.command[1:4])
        await run.until_some_are_answered()
        server.fault = an_error(401, "Your key was revoked")
        assert await run.end("worker") == 2
        assert "refuses the API key (HTTP 401): Your key was revoked" in fleet.log("worker")
        advice = (await _status(fleet))["advice"]
        assert any("cannot be used" in line and "Your key was revoked" in line for line in advice), advice

        server.fault = None
        fleet.start("next", "worker", "--engine", "openai")
        assert await run.end("producer") == 0
    run.check()


async def _worker(fleet: Processes, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What `status` says of the only worker, once it is so."""
    while True:
        workers = (await _status(fleet))["workers"]
        if workers and is_so(workers[0]):
            return dict(workers[0])


async def _status(fleet: Processes) -> dict[str, Any]:
    done = await asyncio.to_thread(batchfleet, "status", "--json", "--redis", fleet.url)
    return dict(json.loads(done.stdout))
