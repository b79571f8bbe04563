"""Ctrl-C: once in order, twice at once; nothing is lost, and the way to continue is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import spawn
from tests.processes import (
    PATIENCE_S,
    ROOT,
    Processes,
    batchfleet,
    lines_in,
    read_answers,
    unmeasured,
    wait_until,
    write_questions,
)

SLOW = {"BATCHFLEET_STUB_STEP_S": "0.02", "BATCHFLEET_STUB_MIN_TOKENS": "5", "BATCHFLEET_STUB_MAX_TOKENS": "25"}


def test_an_interrupted_submission_goes_on_with_the_command_that_it_names(
    tmp_path: Path, redis_server: EmbeddedServer
) -> None:
    """It says how many are where, exits with 130, and the fleet continues meanwhile."""
    ids = write_questions(tmp_path / "questions.jsonl", 1200)
    answers = tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path, SLOW) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "stopped")
        wait_until(lambda: lines_in(answers) > 20, "the first answers")
        fleet.kill("producer", signal.SIGINT)
        assert fleet.finish("producer") == 130
        told = fleet.log("producer")
        summary = json.loads((tmp_path / "answers.jsonl.summary.json").read_text())
        done = lines_in(answers)

        assert (
            fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "stopped", name="again").wait(PATIENCE_S) == 0
        )

    assert (
        f"{done} of 1 200 questions have their line in {answers}".replace(f"{done}", f"{done:,}".replace(",", " "))
        in told
    )
    assert "are queued or in work; the fleet continues with them" in told
    assert (
        f"to resume:   python -m batchfleet submit {tmp_path}/questions.jsonl -o {answers} --model stub --run stopped"
        in told
    )
    assert "to give up:  batchfleet cancel stopped" in told
    assert (summary["finished"], summary["this_call"]["records"]) == (False, done)
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A shorter path than pytest's.

    Where a socket's path would be too long, the fleet goes elsewhere, and there would be nothing to see here.
    """
    with tempfile.TemporaryDirectory(prefix="bf-test-") as made:
        yield Path(made)


def start_run(folder: Path, *, step_s: str) -> subprocess.Popen[bytes]:
    """`batchfleet run` of 2 000 questions, with its temporary files under `folder`."""
    write_questions(folder / "questions.jsonl", 2000)
    environ = {
        **unmeasured(os.environ),
        "PYTHONPATH": str(ROOT),
        **SLOW,
        "BATCHFLEET_STUB_STEP_S": step_s,
        "TMPDIR": str(folder / "tmp"),
    }
    (folder / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "batchfleet",
        "run",
        str(folder / "questions.jsonl"),
        "-o",
        str(folder / "answers.jsonl"),
        "--engine",
        "stub",
    ]
    return spawn(command, environ, folder / "log")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_run_ends_soon_and_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The run is interrupted by Ctrl-C or a lost connection.

    Answers that would take minutes are given up: with its queue gone, nobody could fetch them.
    """
    process = start_run(tmp_path, step_s="0.2")
    wait_until(lambda: lines_in(tmp_path / "answers.jsonl") > 0, "the first answer")
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == 130

    told = (tmp_path / "log").read_text()
    assert "are open; this fleet and its queue end with the command, and resuming asks them again" in told
    assert "killed" not in told
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_second_interruption_ends_at_once(tmp_path: Path) -> None:
    """Whatever the first one waits for; and still nothing is left behind."""
    process = start_run(tmp_path, step_s="0.05")
    wait_until(lambda: lines_in(tmp_path / "answers.jsonl") > 0, "the first answer")
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)  # Two that come at once count as one.
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130

    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    assert "killed" not in told
    assert "to resume:   python -m batchfleet run" in told
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interruption_before_anything_is_asked_is_quiet(tmp_path: Path) -> None:
    """While the engine boots, nothing is to be told but that it stopped."""
    process = start_run(tmp_path, step_s="0.05")
    wait_until(lambda: any((tmp_path / "tmp").iterdir()), "the fleet starts")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130

    assert "Traceback" not in (tmp_path / "log").read_text()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert (
        batchfleet(
            "run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub"
        ).returncode
        == 0
    )


def test_a_long_path_for_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    """That of a batch system's job may be longer than the path of a socket can be."""
    write_questions(tmp_path / "questions.jsonl", 5)
    (tmp_path / ("long" * 30)).mkdir()

    arguments = ["run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub"]
    done = batchfleet(*arguments, environ={"TMPDIR": str(tmp_path / ("long" * 30))})

    assert done.returncode == 0, done.stderr
