"""Redis has no memory left: nothing more is accepted, and what was accepted goes on, which makes room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

from batchfleet.client.run_status import read_run
from batchfleet.supervisor.private_server import PrivateRedis
from tests.processes import Processes, read_answers, wait_until
from tests.submissions import Submitter
from wire.keys import Keys

ROOM_BYTES = 8 * 1024 * 1024
QUESTIONS = 1000
PROMPT = "What is this? " + 20_000 * "x"


def used(client: redis.Redis) -> int:
    """Bytes of the server's memory in use."""
    found: Any = client.info("memory")
    return int(found["used_memory"])


def test_a_full_redis_empties_itself(tmp_path: Path, redis_server: PrivateRedis, client: redis.Redis) -> None:
    """A producer fills it up to its maxmemory. A batcher and a worker that come then answer all, and the producer goes on as there is room."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text(
        "".join(
            json.dumps({"id": f"q{number}", "question": f"{number} {PROMPT}"}) + "\n" for number in range(QUESTIONS)
        )
    )
    client.config_set("maxmemory", used(client) + ROOM_BYTES)

    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.submit(questions, answers)
        wait_until(lambda: "is out of memory" in fleet.log("producer"), "it is full")
        # To the brim, as by somebody else's data.
        client.config_set("maxmemory", used(client) - 100_000)
        fleet.batcher()
        fleet.worker()

        assert fleet.finish("producer", within_s=90) == 0
        assert "leads" in fleet.log("batcher")

    assert len(read_answers(answers)) == QUESTIONS


def test_how_a_run_stands_can_be_read_of_a_full_redis(client: redis.Redis) -> None:
    """It is what a producer makes of a Redis that is smaller than what may be pending, and no reason for `wait()` to give up."""
    Submitter(client, "run-1", 3).offer(3)
    client.config_set("maxmemory", used(client) // 2)

    assert read_run(client, Keys(), "run-1").accepted == 3
