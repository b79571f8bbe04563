"""Questions for a model that nobody serves: refused where nobody ever will, told where somebody may."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from batchfleet.runs.unserved import LONGEST_REPEAT_S, REPEAT_S, UnservedNotice
from batchfleet.status.model import FleetStatus, QueueStatus, WorkerStatus
from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer.options import ReadingLimits
from producer.questions.question_file import check_questions
from producer.resume import FileRun
from tests.builders import a_source
from tests.processes import Processes, batchfleet, read_answers, wait_until


def a_file(folder: Path) -> Path:
    """Ten questions, the fourth of which is for another model."""
    lines = [{"id": f"m{number}", "question": "Why?"} for number in range(10)]
    lines[3]["model"] = "gpt-4o-mini"
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "questions.jsonl"


def test_a_run_that_could_never_end_is_refused_before_an_engine_boots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, with both names, the place of the first such question and the flag that helps.

    Nothing is started or written.
    """
    monkeypatch.setattr("batchfleet.runs.run_file.LocalFleet", None)
    questions, answers = a_file(tmp_path), tmp_path / "answers.jsonl"

    assert main(["run", str(questions), "-o", str(answers), "--engine", "stub"]) == 2

    said = capsys.readouterr().err
    assert f"1 of 10 questions asks for 'gpt-4o-mini' (the first: {questions}:4), but this run serves 'stub'" in said
    assert "`--served-as stub`" in said
    assert not answers.exists()


def test_served_as_asks_every_question_of_the_model_at_hand(tmp_path: Path) -> None:
    """Whatever they name; all are answered, and each record says by which model."""
    questions, answers = a_file(tmp_path), tmp_path / "answers.jsonl"

    done = batchfleet("run", str(questions), "-o", str(answers), "--engine", "stub", "--served-as", "stub")

    assert done.returncode == 0, done.stderr
    assert {line["model"] for line in read_answers(answers)} == {"stub"}
    assert len(read_answers(answers)) == 10


def test_submit_says_at_once_what_nobody_serves_even_if_it_is_to_be_quiet(
    tmp_path: Path, redis_server: EmbeddedServer
) -> None:
    """What has a worker is answered meanwhile."""
    questions, answers = a_file(tmp_path), tmp_path / "answers.jsonl"
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker()
        wait_until(lambda: "serves stub" in fleet.log("worker"), "a worker")
        fleet.submit(questions, answers, "--quiet", "--json")
        wait_until(lambda: answers.exists() and len(read_answers(answers)) == 9, "nine answers")
        fleet.kill("producer", signal.SIGINT)
        assert fleet.finish("producer") == 130
        said = fleet.log("producer")

    assert "1 of 10 questions asks for 'gpt-4o-mini'" in said
    assert "which no worker serves; workers serve 'stub'. They wait until one does; `--served-as stub`" in said


def test_it_is_said_again_as_long_as_it_is_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ever more rarely, ten minutes apart at last.

    Not while a worker of that model is there, nor once nothing waits for it.
    """
    source = a_source(a_file(tmp_path))
    checked = check_questions(source, ReadingLimits())
    run = FileRun("run-1", source, checked, ReadingLimits(), "stub", {})
    ours, theirs = WorkerStatus("w1", "running", "stub"), WorkerStatus("w2", "booting", "gpt-4o-mini")
    waiting = (QueueStatus("gpt-4o-mini", waiting_questions=1),)
    began = time.monotonic()

    def told(seconds: range, *workers: WorkerStatus, queues: tuple[QueueStatus, ...] = waiting) -> list[int]:
        found = []
        for second in seconds:
            notice.look(FleetStatus(queues, workers), began + second)
            if capsys.readouterr().err:
                found.append(second)
        return found

    notice = UnservedNotice(run, ["stub"], began)

    assert "gpt-4o-mini" in capsys.readouterr().err
    times = told(range(10_000), ours)
    assert times[:3] == [REPEAT_S, 3 * REPEAT_S, 7 * REPEAT_S]
    assert times[-1] - times[-2] == LONGEST_REPEAT_S
    assert told(range(10_000, 12_000), ours, theirs) == []
    assert told(range(12_000, 14_000), ours, queues=()) == []
    assert told(range(14_000, 16_000), ours) != []
