"""When the first hundred questions all fail alike, a run stops, and is as if it had not been.

One typo must not cost an answers file.
"""

from __future__ import annotations

import json
from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, write_questions

QUESTIONS = 300
REFUSING = {"BATCHFLEET_STUB_REFUSE_ON": "Question"}


def test_a_run_stops_and_the_same_command_asks_all_of_it(tmp_path: Path) -> None:
    """Exit code 3 with the reason and the way on.

    Once the reason is gone, the same command finds nothing in its way.
    """
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    ids = write_questions(questions, QUESTIONS)
    command = ("run", str(questions), "-o", str(answers), "--engine", "stub", "--json")

    stopped = batchfleet(*command, environ=REFUSING)
    lines_left = lines_in(answers)
    corrected = batchfleet(*command)

    assert (stopped.returncode, lines_left) == (3, 0), stopped.stderr
    assert "questions all failed alike, so the others were not asked; refused, such as q" in stopped.stderr
    assert json.loads(stopped.stdout)["failed"] == 0
    assert corrected.returncode == 0, corrected.stderr
    assert sorted(line["id"] for line in read_answers(answers)) == sorted(ids)


def test_keep_going_asks_them_all(tmp_path: Path) -> None:
    """For those who want a line of failure for each."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write_questions(questions, QUESTIONS)

    done = batchfleet("run", str(questions), "-o", str(answers), "--engine", "stub", "--keep-going", environ=REFUSING)

    assert done.returncode == 1, done.stderr
    assert {line["error"]["kind"] for line in read_answers(answers)} == {"refused"}
    assert lines_in(answers) == QUESTIONS


def test_a_submission_stops_and_its_name_can_be_used_again(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """Also for corrected questions, in the same answers file.

    Redis has forgotten what was asked, and no old failure comes back.
    """
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write_questions(questions, QUESTIONS)
    command = (
        "submit",
        str(questions),
        "-o",
        str(answers),
        "--run",
        "nightly",
        "--model",
        "stub",
        "--redis",
        redis_server.url,
    )

    with Processes(redis_server.url, tmp_path, environ=REFUSING) as fleet:
        fleet.batcher()
        fleet.worker()
        stopped = batchfleet(*command)
        questions.write_text(questions.read_text().replace("Question", "Riddle"))
        corrected = batchfleet(*command)
        verified = batchfleet("verify", "nightly", "--redis", redis_server.url, "--json")

    assert stopped.returncode == 3, stopped.stderr
    assert "batchfleet forget" not in stopped.stderr
    assert corrected.returncode == 0, corrected.stderr
    assert {line["status"] for line in read_answers(answers)} == {"answered"}
    assert lines_in(answers) == QUESTIONS
    assert json.loads(verified.stdout) == {
        "run": "nightly",
        "accepted": QUESTIONS,
        "answered": QUESTIONS,
        "failed": 0,
        "missing": 0,
        "duplicates": 0,
    }


def test_what_was_answered_before_stays(tmp_path: Path) -> None:
    """A run that continues where everything fails takes back what it added, and nothing else."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    ids = write_questions(questions, QUESTIONS)
    command = ("run", str(questions), "-o", str(answers), "--engine", "stub")
    assert batchfleet(*command).returncode == 0
    kept = b"".join(answers.read_bytes().splitlines(keepends=True)[:50])
    answers.write_bytes(kept)

    stopped = batchfleet(*command, environ=REFUSING)
    after = answers.read_bytes()
    corrected = batchfleet(*command)

    assert (stopped.returncode, after) == (3, kept), stopped.stderr
    assert corrected.returncode == 0, corrected.stderr
    assert sorted(line["id"] for line in read_answers(answers)) == sorted(ids)
