"""Several samples of each question, and more of them later."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchfleet.cli.main import main
from tests.processes import batchfleet, read_answers, write_questions


def test_more_samples_are_asked_without_those_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines that are there stay as they are; each sample has its seed, and seeds make a difference."""
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    ids = write_questions(questions, 5)
    command = ["run", str(questions), "-o", str(answers), "--engine", "stub", "--temperature", "0.7", "--quiet"]

    assert batchfleet(*command, "--samples", "2").returncode == 0
    first = answers.read_bytes()
    more = batchfleet(*command, "--samples", "3", "--json")

    found = {answer["id"]: answer for answer in read_answers(answers)}
    assert more.returncode == 0, more.stderr
    assert answers.read_bytes().startswith(first)
    assert answers.read_bytes().count(b"\n") == 15
    assert set(found) == {f"{name}#{number}" for name in ids for number in (1, 2, 3)}
    assert {answer["params"]["seed"] for name, answer in found.items() if name.endswith("#3")} == {2}
    assert len({found[f"q0#{number}"]["text"] for number in (1, 2, 3)}) > 1
    assert main([*command, "--samples", "1"]) == 2
    assert "samples (3 then, 1 now)" in capsys.readouterr().err
    assert main([*command, "--samples", "4", "--temperature", "0"]) == 2
    assert "give --temperature" in capsys.readouterr().err


def test_failed_samples_are_asked_again(tmp_path: Path) -> None:
    """`retry` replaces their lines, with the seeds that they had, and leaves those of other samples alone."""
    questions, answers = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text('{"id": "a", "question": "good"}\n{"id": "b", "question": "bad"}\n')
    command = ["run", str(questions), "-o", str(answers), "--engine", "stub", "--temperature", "0.7", "--samples", "2"]

    first = batchfleet(*command, environ={"BATCHFLEET_STUB_REFUSE_ON": "bad"})
    before = {answer["id"]: answer for answer in read_answers(answers)}
    again = batchfleet("retry", str(answers), "--kind", "refused")

    found = {answer["id"]: answer for answer in read_answers(answers)}
    assert (first.returncode, again.returncode) == (1, 0), again.stderr
    assert [before[name]["status"] for name in ("b#1", "b#2")] == ["failed"] * 2
    assert [found[f"b#{number}"]["params"]["seed"] for number in (1, 2)] == [0, 1]
    assert {name: found[name] for name in ("a#1", "a#2")} == {name: before[name] for name in ("a#1", "a#2")}
    assert len(found) == answers.read_bytes().count(b"\n") == 4
