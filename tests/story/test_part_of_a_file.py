"""Part of a file, and questions that are more urgent than others."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from batchfleet.cli.main import main
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, read_answers, wait_until, write_questions


def test_a_limited_run_is_resumed_as_such_and_never_mixed_with_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command resumes it, and whatever asks for other questions is refused.

    The whole file, another limit or a sample under the same answers file changes nothing.
    """
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    ids = write_questions(questions, 20)
    command = ["run", str(questions), "-o", str(answers), "--engine", "stub"]

    first = batchfleet(*command, "--limit", "5")
    written = answers.read_bytes()

    assert first.returncode == 0, first.stderr
    assert sorted(answer["id"] for answer in read_answers(answers)) == ids[:5]
    assert main([*command, "--limit", "5"]) == 0
    for flags, now in (
        ([], "nothing"),
        (["--limit", "6"], "the first 6"),
        (["--sample", "5"], "a sample of 5, seed 0"),
    ):
        assert main([*command, *flags]) == 2
        assert f"limited to (the first 5 then, {now} now)" in capsys.readouterr().err
    assert answers.read_bytes() == written


def test_a_priority_is_that_of_questions_that_bring_none(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Nothing else about them changes: the run is the same one, and can be resumed with another priority.

    A question that says 0 brings one.
    """
    questions = tmp_path / "q.jsonl"
    questions.write_text(
        '{"id": "a", "question": "Why?"}\n{"id": "b", "question": "How?", "priority": 3}\n'
        '{"id": "c", "question": "Who?", "priority": 0}\n'
    )

    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.submit(questions, tmp_path / "a.jsonl", "--priority", "7")
        streams = {f"batchfleet:questions:stub:{priority}".encode() for priority in (7, 3, 0)}
        wait_until(lambda: streams <= set(client.scan_iter("batchfleet:questions:*")), "questions wait")
        fleet.kill("producer")
        fleet.batcher()
        fleet.worker()
        fleet.submit(questions, tmp_path / "a.jsonl", name="again")

        assert fleet.finish("again") == 0
    assert {answer["id"] for answer in read_answers(tmp_path / "a.jsonl")} == {"a", "b", "c"}
