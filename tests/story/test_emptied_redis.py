"""Somebody empties Redis in the middle of a run: the user is told, and the run still ends with one line a question."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, lines_in, read_answers, wait_until, write_questions

SLOW = {"BATCHFLEET_STUB_STEP_S": "0.02", "BATCHFLEET_STUB_MIN_TOKENS": "5", "BATCHFLEET_STUB_MAX_TOKENS": "25"}


def test_flushall_in_the_middle_is_told_and_costs_no_question(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """What has no line is asked again; what has one is not, and nothing is there twice."""
    ids = write_questions(tmp_path / "questions.jsonl", 1200)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, SLOW) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "emptied")
        wait_until(lambda: lines_in(answers) > 100, "the first answers")
        client.flushall()
        code = fleet.finish("producer")
        said = fleet.log("producer")

    assert code == 0, said
    assert "Redis has lost a part of run emptied; what has no result is asked again" in said
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
