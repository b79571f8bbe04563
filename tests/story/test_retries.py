"""Failures that may pass are tried again, with pauses, until the question's time is up.

A real worker asks a real server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, read_answers
from tests.unit.scripted_server import MODEL, Asked, Reply, ScriptedServer, a_text, an_error

MOST_S = 5.0


async def test_what_may_pass_is_tried_again(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """One question fails once and is answered; another fails always and ends as a retryable failure.

    The others notice nothing.
    """
    moments: dict[str, list[float]] = defaultdict(list)

    def script(asked: Asked) -> Reply:
        prompt = asked.body["prompt"]
        moments[prompt].append(time.monotonic())
        if prompt == "never" or (prompt == "fickle" and len(moments[prompt]) == 1):
            return an_error(503)
        return a_text()

    names = ["fickle", "never", *(f"fine {number}" for number in range(20))]
    (tmp_path / "questions.jsonl").write_text(
        "".join(json.dumps({"id": name, "prompt": name}) + "\n" for name in names)
    )
    environ = {
        "BATCHFLEET_BOOT_LOCAL": "false",
        "BATCHFLEET_SERVER": "127.0.0.1",
        "BATCHFLEET_MODEL_GENERATOR_SETTINGS_MODEL": MODEL,
    }
    async with ScriptedServer(script) as server:
        with Processes(redis_server.url, tmp_path, {**environ, "BATCHFLEET_PORT": str(server.port)}) as fleet:
            fleet.batcher()
            fleet.start("worker", "worker", "--engine", "openai", LIMITS_QUESTION_TIMEOUT_S=str(MOST_S))
            fleet.start("producer", "submit", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"))
            assert await asyncio.to_thread(fleet.finish, "producer") == 1

    by_id = {line["id"]: line for line in read_answers(tmp_path / "answers.jsonl")}
    assert len(by_id) == len(names)
    assert by_id["fickle"]["status"] == "answered"
    error = by_id["never"]["error"]
    assert (error["kind"], error["retryable"]) == ("timed_out", True)
    assert all(len(moments[name]) == 1 and by_id[name]["status"] == "answered" for name in names[2:])
    # Pauses of 0.5 s, 1 s, 2 s and so on, each shortened at random by up to half: at most four fit into the time.
    tried = moments["never"]
    assert 2 <= len(tried) <= 5
    pauses_s = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert all(pause_s >= 0.25 * 2**number for number, pause_s in enumerate(pauses_s)), pauses_s
