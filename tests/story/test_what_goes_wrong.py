"""Whatever is wrong with what a user gives: one clear message, exit code 2, and nothing begun."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from producer.answers.answers_file import AnswersFile
from tests.processes import batchfleet, read_answers, write_questions

BAD_LINES = {
    "not JSON": b'{"id": "x", "question": }',
    "an empty prompt": b'{"id": "x", "question": "  "}',
    "a lone surrogate": b'{"id": "x", "question": "\\ud800"}',
    "no question": b'{"id": "x"}',
    "a misspelt field": b'{"id": "x", "question": "Why?", "modle": "m"}',
    "bad UTF-8": b'{"id": "x", "question": "\xff"}',
    "an id twice": b'{"id": "q2", "question": "Again?"}',
    "a line of 50 MB": b'{"id": "x", "question": "' + b"a" * 50_000_000 + b'"}',
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run one command that must not get as far as starting anything.

    Returns its exit code and what it complained of.
    """
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return code, said.err


@pytest.mark.parametrize("what", BAD_LINES)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    """Nothing is submitted before the whole file is known to be good."""
    questions = tmp_path / "questions.jsonl"
    write_questions(questions, 5)
    with questions.open("ab") as file:
        file.write(BAD_LINES[what] + b"\n")

    code, said = run(capsys, "run", str(questions), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub")

    assert code == 2
    assert f"{questions}:6: " in said
    assert len(said) < 2000
    assert not (tmp_path / "answers.jsonl").exists()


def test_bad_lines_become_failures_when_asked(tmp_path: Path) -> None:
    """`--skip-invalid`: the good ones are answered, the bad ones are failures with the reason, exit code 1."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write_questions(questions, 5)
    with questions.open("ab") as file:
        file.writelines(line + b"\n" for what, line in BAD_LINES.items() if "MB" not in what)
    bad = len(BAD_LINES) - 1

    done = batchfleet("run", str(questions), "-o", str(answers), "--engine", "stub", "--skip-invalid", "--json")

    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["accepted"], summary["answered"], summary["failed"]) == (5 + bad, 5, bad)
    failures = [line for line in read_answers(answers) if line["status"] == "failed"]
    assert {line["error"]["kind"] for line in failures} == {"invalid_question"}
    assert all("line " in line["error"]["message"] for line in failures)


def test_files_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing questions, a folder in place of a file, an output folder that is not there: each says which path."""
    questions = tmp_path / "questions.jsonl"
    write_questions(questions, 3)
    for given, output in (
        (tmp_path / "nowhere.jsonl", tmp_path / "a.jsonl"),
        (tmp_path, tmp_path / "a.jsonl"),
        (questions, tmp_path / "no-such-folder" / "a.jsonl"),
        (questions, tmp_path),
        (questions, questions),
    ):
        code, said = run(capsys, "run", str(given), "-o", str(output), "--engine", "stub")
        assert code == 2
        assert str(given) in said or str(output) in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_is_not_writable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found out before any work, not after."""
    write_questions(tmp_path / "questions.jsonl", 3)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)

    code, said = run(
        capsys, "run", str(tmp_path / "questions.jsonl"), "-o", str(closed / "a.jsonl"), "--engine", "stub"
    )

    assert code == 2
    assert str(closed) in said


def test_a_changed_configuration_does_not_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers made with other parameters are not mixed into one file; the difference is named."""
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write_questions(questions, 10)
    arguments = ["run", str(questions), "-o", str(answers), "--engine", "stub"]
    assert batchfleet(*arguments).returncode == 0

    monkeypatch.setenv("BATCHFLEET_MAX_TOKENS", "7")
    code, said = run(capsys, *arguments)
    monkeypatch.delenv("BATCHFLEET_MAX_TOKENS")
    with questions.open("a") as file:
        file.write('{"id": "more", "question": "One more?"}\n')
    code_again, said_again = run(capsys, *arguments)

    assert (code, code_again) == (2, 2)
    assert "parameters" in said
    assert '"max_tokens": 7' in said
    assert "the first 10 questions are the same, the others were added since (10 questions then, 11 now)" in said_again


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", "my notes\n"), ("a.jsonl", '{"no": "newline at the end"}'), ("a.csv", "my,table\n1,2\n")],
)
def test_an_answers_file_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    """A file that no run of ours wrote is neither overwritten, nor appended to, nor taken for a torn line."""
    write_questions(tmp_path / "questions.jsonl", 3)
    answers = tmp_path / name
    answers.write_text(content)

    code, said = run(capsys, "run", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--engine", "stub")

    assert code == 2
    assert "choose another -o" in said
    assert answers.read_text() == content


def test_what_is_no_regular_file_holds_no_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers are read again to resume a run; that a pipe cannot do so is said before anything is asked."""
    write_questions(tmp_path / "questions.jsonl", 3)
    os.mkfifo(tmp_path / "pipe")

    code, said = run(capsys, "run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "pipe"), "--engine", "stub")

    assert code == 2
    assert "not a regular file" in said
    assert not (tmp_path / "pipe.run").exists()


def test_two_names_of_one_answers_file_are_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to it has a sidecar of its own, and the lines of two runs would still come to lie between each other."""
    write_questions(tmp_path / "questions.jsonl", 3)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "answers.jsonl")

    with AnswersFile(tmp_path / "answers.jsonl"):
        code, said = run(
            capsys, "run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "link.jsonl"), "--engine", "stub"
        )

    assert code == 2
    assert "another batchfleet process is writing" in said


def test_no_engine_is_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model and without --engine there is an error, never a stub's answers."""
    write_questions(tmp_path / "questions.jsonl", 3)

    code, said = run(capsys, "run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "a.jsonl"))

    assert code == 2
    assert "which model should answer?" in said
    assert "--engine stub" in said


def test_a_fleet_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No Redis at that address: said at once, with the address and without the password."""
    write_questions(tmp_path / "questions.jsonl", 3)
    url = "redis://user:hush@127.0.0.1:9/0"

    code, said = run(
        capsys, "submit", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "a.jsonl"), "--redis", url
    )

    assert code == 3
    assert "127.0.0.1:9" in said
    assert "hush" not in said


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "q.jsonl"], ["fly"], ["run", "q", "-o", "a", "--workers", "0"], ["status"]]
)
def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Usage errors end with exit code 2."""
    code, said = run(capsys, *arguments)

    assert code == 2
    assert said


def test_a_wrong_setting_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An impossible value and a misspelt key, each with file and line."""
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  generator_settings:\n    batch_size: 0\n    batch_tiemout: 1\n")

    code, said = run(capsys, "config", "--config", str(config))

    assert code == 2
    assert f"{config}:3: " in said
    assert f"{config}:4: " in said
    assert "batch_timeout" in said
