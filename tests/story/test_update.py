"""A file that grows: `submit --update` asks what changed, also where the fleet is still at work on it as it was."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, lines_in, read_answers, wait_until, write_questions


def accepted_in(client: redis.Redis) -> int:
    """How many questions were accepted, in all runs together."""
    runs: Any = client.zrange("batchfleet:runs", 0, -1)
    counts: Any = [client.hget(b"batchfleet:run:" + run, "accepted") for run in runs]
    return sum(map(int, counts))


def test_an_edit_in_the_middle_of_a_run_asks_no_row_twice(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """What the killed producer had sent is waited for and kept; what changed, is new or was not sent is asked once."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    ids = write_questions(questions, 120)
    slow = {"BATCHFLEET_STUB_STEP_S": "0.01", "BATCHFLEET_STUB_MAX_TOKENS": "20", "BATCHFLEET_LIMITS_RUN_WINDOW": "60"}
    with Processes(redis_server.url, tmp_path, slow) as fleet:
        fleet.batcher()
        fleet.worker("slow", STUB_MAX_NUM_SEQS="1")
        fleet.submit(questions, answers)
        wait_until(lambda: lines_in(answers) > 5, "the first answers")
        fleet.kill("producer")
        sent = accepted_in(client)
        assert lines_in(answers) < sent < 120
        fleet.kill("slow")
        rows = [json.loads(line) for line in questions.read_text().splitlines()]
        rows[0]["question"] = "Quite another one?"
        rows[1], rows[119] = {**rows[1], "id": "q119"}, {**rows[119], "id": "q1"}
        questions.write_text("".join(json.dumps(row) + "\n" for row in [{"id": "new", "question": "New?"}, *rows]))

        fleet.worker("fast")
        fleet.submit(questions, answers, "--update", name="update")
        assert fleet.finish("update") == 0, fleet.log("update")
        fresh = tmp_path / "fresh.jsonl"
        fleet.submit(questions, fresh, "--run", "fresh", name="again")
        assert fleet.finish("again") == 0, fleet.log("again")

    assert "that the fleet still has" in fleet.log("update")
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(["new", *ids])
    texts = {line["id"]: line["text"] for line in read_answers(answers)}
    assert texts == {line["id"]: line["text"] for line in read_answers(fresh)}
    # Each row of the file once, and the two that were sent before they changed.
    assert accepted_in(client) - 121 == 121 + 2
