"""The same questions under several settings, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from producer.file_run import Runner
from producer.run_loop import StuckError
from producer.run_tally import RunTally
from tests.processes import PATIENCE_S, ROOT, batchfleet, lines_in, read_answers, wait_until, write_questions

CONFIG = """
generator_settings:
  batch_timeout: 0.05
  top_p: 0.8
sweep:
  grid:
    temperature: [0.0, 0.7]
    top_p: [null, 0.5]
  runs:
    - {name: small, stub.max_num_seqs: 4}
    - {name: large, stub.max_num_seqs: 8}
"""


NOBODY_THERE = """
generator_settings: {boot_local: false, server: 127.0.0.1, model: m, server_startup_timeout: 1.0}
sweep: {grid: {port: [9, 10]}}
"""


def arguments_of(folder: Path) -> list[str]:
    """What a person gives, without the engine."""
    return ["sweep", str(folder / "questions.jsonl"), "-o", str(folder / "out"), "--config", str(folder / "sweep.yaml")]


def test_a_sweep_makes_every_run_and_compares_them(tmp_path: Path) -> None:
    """Each run's answers say that they were made with its settings; two engines make two fleets.

    A second call asks nothing again.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 40)
    (tmp_path / "sweep.yaml").write_text(CONFIG)
    arguments = [
        "sweep",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "out"),
        "--config",
        str(tmp_path / "sweep.yaml"),
        "--engine",
        "stub",
    ]

    done = batchfleet(*arguments, "--engine", "stub", "--json")
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")}
    again = batchfleet(*arguments, "--engine", "stub")

    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    rows = json.loads(done.stdout)["runs"]
    names = [f"temperature-{temperature}_top_p-{top_p}" for temperature in ("0.0", "0.7") for top_p in ("null", "0.5")]
    assert [row["name"] for row in rows] == [f"{size}_{name}" for size in ("small", "large") for name in names]
    workers = set()
    for row in rows:
        answers = read_answers(Path(row["answers"]))
        assert sorted(line["id"] for line in answers) == sorted(ids)
        assert {line["params"]["temperature"] for line in answers} == {row["overrides"]["temperature"]}
        assert {line["params"].get("top_p") for line in answers} == {row["overrides"]["top_p"]}
        workers.add((row["name"].partition("_")[0], *{line["worker"] for line in answers}))
    assert len(workers) == 2, "runs that differ in sampling alone share an engine"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.jsonl")} == files
    assert again.stdout.count("temperature-0.7_top_p-0.5") == 2
    assert "the stub engine boots" not in again.stderr


def test_a_sweep_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    """Ctrl-C: exit code 130 and what to do; the same command asks the rest."""
    ids = write_questions(tmp_path / "questions.jsonl", 300)
    (tmp_path / "sweep.yaml").write_text("sweep: {grid: {max_tokens: [20, 21]}}\nstub: {step_s: 0.02}\n")
    arguments = [
        "sweep",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "out"),
        "--config",
        str(tmp_path / "sweep.yaml"),
        "--engine",
        "stub",
    ]
    first = tmp_path / "out" / "max_tokens-20.jsonl"

    command = [sys.executable, "-m", "batchfleet", *arguments, "--engine", "stub"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True)  # noqa: S603 (ours)
    wait_until(lambda: lines_in(first) > 20, "the first answers")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    stopped_with = first.read_bytes()
    done = batchfleet(*arguments, "--engine", "stub", environ={"BATCHFLEET_STUB_STEP_S": "0"})

    assert process.returncode == 130
    assert "2 of 2 runs are not finished; the same command resumes them" in said
    assert done.returncode == 0, done.stderr
    assert first.read_bytes().startswith(stopped_with)
    for name in ("max_tokens-20", "max_tokens-21"):
        assert sorted(line["id"] for line in read_answers(tmp_path / "out" / f"{name}.jsonl")) == sorted(ids)


def test_an_engine_that_cannot_boot_costs_its_own_runs_only(tmp_path: Path) -> None:
    """The table says what is missing and why, the others are still tried, and the exit code is 3."""
    write_questions(tmp_path / "questions.jsonl", 10)
    (tmp_path / "sweep.yaml").write_text(NOBODY_THERE)
    arguments = arguments_of(tmp_path)

    done = batchfleet(*arguments)

    assert done.returncode == 3, done.stderr
    assert "port-9: not finished: " in done.stdout
    assert "port-10: not finished: " in done.stdout
    assert "Traceback" not in done.stderr


def test_standard_input_cannot_be_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It could be read for the first run only."""
    (tmp_path / "sweep.yaml").write_text("sweep: {grid: {max_tokens: [1, 2]}}")

    code = main(
        ["sweep", "-", "-o", str(tmp_path / "out"), "--config", str(tmp_path / "sweep.yaml"), "--engine", "stub"]
    )

    assert code == 2
    assert "put them into a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        (
            "sweep: {grid: {temprature: [0.1]}}",
            "sweep, run temprature-0.1: temprature: unknown key; did you mean model.generator_settings.temperature?",
        ),
        ("sweep: {grid: {temperature: [9.0]}}", "sweep, run temperature-9.0: model.generator_settings.temperature"),
        ("sweep: {grids: {}}", "did you mean grid?"),
        ("batch_size: 4", "nothing is swept"),
    ],
)
def test_a_wrong_sweep_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: str, complaint: str
) -> None:
    """Before any engine boots or any file is made."""
    write_questions(tmp_path / "questions.jsonl", 3)
    (tmp_path / "sweep.yaml").write_text(sweep)

    code = main([*arguments_of(tmp_path), "--engine", "stub"])

    assert code == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_stuck_leaves_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A question among the dead letters keeps one run from its end; the sweep may have a night's runs behind it."""
    write_questions(tmp_path / "questions.jsonl", 10)
    (tmp_path / "sweep.yaml").write_text("sweep: {grid: {temperature: [0.0, 0.7]}}\n")
    run = Runner.run

    def stuck_once(_: Runner) -> RunTally:
        monkeypatch.setattr(Runner, "run", run)
        raise StuckError("10 questions have no record")

    monkeypatch.setattr(Runner, "run", stuck_once)

    code = main([*arguments_of(tmp_path), "--engine", "stub", "--json"])

    rows = json.loads(capsys.readouterr().out)["runs"]
    assert code == 3
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("not finished", "10 questions have no record"),
        ("complete", ""),
    ]
