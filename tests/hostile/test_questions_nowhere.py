"""Questions of a program that are nowhere in Redis any more: it is told, and can ask them again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from batchfleet import Fleet, FleetError
from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer import run_loop
from tests.hostile.attacks import STREAM
from tests.processes import Processes, wait_until

QUESTIONS = [{"id": f"q{number}", "question": f"What is {number}?"} for number in range(5)]


def test_a_program_is_told_of_questions_that_are_nowhere_and_asks_them_again(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run and its single question end with an error, instead of never; the same client's next ones are answered."""
    monkeypatch.setattr(run_loop, "QUIET_S", 0.2)
    monkeypatch.setattr(run_loop, "CHECK_S", 0.1)
    with Fleet(redis_server.url, model="stub") as fleet:
        run = fleet.submit(QUESTIONS, run="r")
        wait_until(lambda: client.xlen(STREAM) == len(QUESTIONS), "all are queued")
        client.delete(STREAM)
        with pytest.raises(FleetError, match=r"^5 questions of run r have no record, and nothing of it is queued"):
            list(run.results())

        with ThreadPoolExecutor(1) as asker:
            asked = asker.submit(fleet.ask, "Why?")
            wait_until(lambda: client.xlen(STREAM) == 1, "it is queued")
            client.delete(STREAM)
            with pytest.raises(FleetError, match=r"^1 question of run \S+ has no record") as told:
                asked.result()
        assert "ask them again, in another run" in str(told.value)

        with Processes(redis_server.url, tmp_path) as processes:
            processes.batcher()
            processes.worker()
            again = {result.id for result in fleet.submit(QUESTIONS, run="r2").results()}
            single = fleet.ask("And now?")

    assert again == {str(question["id"]) for question in QUESTIONS}
    assert single.text
