"""`--max-tokens-total` and `--max-seconds` end a run before it costs more; the same command continues from there."""

from __future__ import annotations

from pathlib import Path

from tests.processes import batchfleet, read_answers, write_questions


def test_a_run_ends_at_its_ceiling_and_can_be_gone_on_with(tmp_path: Path) -> None:
    """Exit code 3, nothing beyond the ceiling, no line lost; with a higher one the rest is asked."""
    ids = write_questions(tmp_path / "questions.jsonl", 40)
    command = ["run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub"]
    same_length = {"BATCHFLEET_STUB_MIN_TOKENS": "20", "BATCHFLEET_STUB_MAX_TOKENS": "20"}

    stopped = batchfleet(*command, "--max-tokens-total", "600", "--max-tokens", "20", environ=same_length)

    lines = read_answers(tmp_path / "answers.jsonl")
    used = sum(line["usage"]["prompt_tokens"] + line["usage"]["completion_tokens"] for line in lines)
    assert stopped.returncode == 3
    assert f"{used} of the 600 tokens of --max-tokens-total are used" in stopped.stderr
    assert 300 < used <= 600

    done = batchfleet(*command, "--max-tokens-total", "10000", "--max-tokens", "20", environ=same_length)

    assert done.returncode == 0, done.stderr
    assert sorted(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == sorted(ids)


def test_a_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    """Exit code 3 with what is open in the engine; the same command without a ceiling asks all that has no line."""
    ids = write_questions(tmp_path / "questions.jsonl", 10)
    command = ["run", str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--engine", "stub"]
    hours = {"BATCHFLEET_STUB_MIN_TOKENS": "100", "BATCHFLEET_STUB_STEP_S": "10"}

    stopped = batchfleet(*command, "--max-seconds", "1", environ=hours)
    done = batchfleet(*command)

    assert stopped.returncode == 3
    assert "the 1 s of --max-seconds are over" in stopped.stderr
    assert done.returncode == 0, done.stderr
    assert sorted(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == sorted(ids)
