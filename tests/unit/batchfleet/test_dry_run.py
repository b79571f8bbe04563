"""`--dry-run` says what a run would be and starts none; ceilings end a run before it costs more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from batchfleet.settings.load import load_settings
from batchfleet.settings.mask import to_file_text
from batchfleet.tuning.search import Setting
from batchfleet.tuning.tune import with_setting
from producer.run_tally import RunTally
from producer.token_budget import TokenBudget
from tests.builders import an_answer
from wire.messages import Usage


def ask(folder: Path, rows: list[dict[str, object]], *flags: str) -> int:
    """`batchfleet run --dry-run` of a file with these rows."""
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = str(folder / "answers.jsonl")
    return main(["run", str(folder / "questions.jsonl"), "-o", answers, "--engine", "stub", "--dry-run", *flags])


def test_a_dry_run_says_what_would_be_asked_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, equal ones, tokens, what they may write at most, and what is known to be too long."""
    rows: list[dict[str, object]] = [{"question": "x" * 400}, {"question": "x" * 400}, {"question": "short"}]
    (tmp_path / "fleet.yaml").write_text("vllm_args: {max_model_len: 50}\n")

    code = ask(tmp_path, rows, "--json", "--max-tokens", "10", "--config", str(tmp_path / "fleet.yaml"))

    said = capsys.readouterr()
    told = json.loads(said.out)
    assert code == 0
    assert (told["questions"], told["to_ask"], told["identical"], told["too_long"]) == (3, 3, 1, 2)
    assert (told["prompt_tokens"], told["max_completion_tokens"], told["seconds"]) == (202, 30, None)
    assert "3 of 3 questions would be asked; nothing was" in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"questions.jsonl", "fleet.yaml"}


def test_a_dry_run_counts_no_words_in_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an image costs only its model knows; the length of its address says nothing."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 4000}"}}
    content = [{"type": "text", "text": "x" * 40}, image]

    assert ask(tmp_path, [{"messages": [{"role": "user", "content": content}]}], "--json") == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == 10


def test_a_dry_run_names_what_would_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that cannot be used is an error with its place, as it would be for the run."""
    assert ask(tmp_path, [{"question": "fine?"}, {"modle": "x"}]) == 2
    assert "questions.jsonl:2" in capsys.readouterr().err


def test_a_dry_run_estimates_time_from_the_call_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its rate, and its GPU seconds for each answer, are in the summary beside the answers."""
    call = {"records": 10, "questions_per_s": 0.5, "gpu_s": 3600.0}
    (tmp_path / "answers.jsonl.summary.json").write_text(json.dumps({"this_call": call}))

    ask(tmp_path, [{"question": str(number)} for number in range(20)], "--json")

    told = json.loads(capsys.readouterr().out)
    assert (told["seconds"], told["gpu_hours"]) == (40.0, 2.0)


def test_a_dry_run_estimates_time_from_what_tune_has_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one worker; as many are counted as there would be, and their GPUs. What really came before goes first."""
    monkeypatch.setenv("BATCHFLEET_GPUS", "2")
    tuned = with_setting(load_settings(None, {}, {}).settings, "stub", Setting(8, 12, 4), 0.25)
    (tmp_path / "tuned.yaml").write_text(to_file_text(tuned))
    rows: list[dict[str, object]] = [{"question": str(number)} for number in range(1800)]
    flags = ("--json", "--config", str(tmp_path / "tuned.yaml"), "--workers", "2")

    ask(tmp_path, rows, *flags)
    told = json.loads(capsys.readouterr().out)
    call = {"records": 10, "questions_per_s": 5.0, "gpu_s": 0.0}
    (tmp_path / "answers.jsonl.summary.json").write_text(json.dumps({"this_call": call}))
    ask(tmp_path, rows, *flags)

    assert (told["seconds"], told["gpu_hours"]) == (3600.0, 2.0)
    assert "0.25 questions/s that tune measured, by 2 workers" in told["rate_from"]
    assert json.loads(capsys.readouterr().out)["seconds"] == 360.0


def test_questions_are_sent_as_long_as_what_is_open_fits_the_ceiling() -> None:
    """Judged by those that have come; before the first, by a guess. What earlier calls have used counts."""
    budget = TokenBudget(most=1000, first_guess=100.0)
    tally = RunTally(100, tokens_before=500)
    assert budget.has_room(tally, 5)
    assert not budget.has_room(tally, 6)

    for number in range(5):
        tally.count(an_answer(f"q{number}", index=number, usage=Usage(prompt_tokens=10, completion_tokens=10)))

    assert budget.spent(tally) == 600
    assert budget.has_room(tally, 20)
    assert not budget.has_room(tally, 21)
