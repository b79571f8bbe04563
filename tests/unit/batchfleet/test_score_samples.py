"""`batchfleet score` where each question was asked several times."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from batchfleet.scoring.samples import majority, pass_at
from batchfleet.scoring.tally import Scored


@pytest.mark.parametrize(("samples", "right"), [(5, 0), (5, 2), (6, 5), (4, 4)])
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(samples: int, right: int) -> None:
    """For every k, against going through all choices of k samples."""
    drawn = [number < right for number in range(samples)]

    for k in range(1, samples + 1):
        choices = list(itertools.combinations(drawn, k))
        assert pass_at(k, samples, right) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_most_samples_decide_and_the_first_of_equals() -> None:
    """What says nothing has no vote; without any vote a question is unclear if one sample is."""
    right, wrong, other = Scored("right", "A"), Scored("wrong", "B"), Scored("wrong", "C")
    unclear, failed = Scored("unclear", why="empty"), Scored("failed", why="expired")

    chosen = [
        majority(samples).value or majority(samples).outcome
        for samples in (
            [right, wrong, wrong],
            [other, right, wrong],
            [failed, failed, right],
            [failed, unclear],
            [failed],
        )
    ]

    assert chosen == ["B", "C", "A", "unclear", "failed"]


def test_samples_are_scored_by_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each question counts once in the accuracy, by its majority, and pass@k and failures are those of the samples."""
    said = {"q1": "AAB", "q2": "BBA", "q3": "A-", "q4": "BBB"}
    questions, answers, details = (tmp_path / name for name in ("q.jsonl", "a.jsonl", "d.jsonl"))
    questions.write_text(
        "".join(
            json.dumps({"id": name, "question": "?", "answer": "A", "part": name in ("q1", "q2")}) + "\n"
            for name in said
        )
    )
    answers.write_text(
        "".join(
            json.dumps(
                {"id": f"{name}#{number}", "status": "failed", "error": {"kind": "expired"}}
                if letter == "-"
                else {"id": f"{name}#{number}", "status": "answered", "text": f"The answer is {letter}."}
            )
            + "\n"
            for number in (3, 1, 2)
            for name, letters in said.items()
            for letter in letters[number - 1 : number]
        )
    )

    code = main(
        ["score", str(answers), "--questions", str(questions), "--details", str(details), "--by", "part", "--json"]
    )

    (found,) = json.loads(capsys.readouterr().out)["scores"]
    samples = found["samples"]
    assert code == 3, "one sample of q3 has no line"
    assert (found["questions"], found["right"], found["wrong"]) == (4, 2, 2)
    assert (samples["each"], samples["failed"], samples["missing"]) == (3, 1, 1)
    assert samples["majority"] == {"share": 0.5, "interval_95": found["interval_95"]}
    shares = {k: one["share"] for k, one in samples["pass_at"].items()}
    assert shares == {"1": pytest.approx(4 / 12, abs=1e-6), "2": pytest.approx(7 / 12, abs=1e-6), "3": 0.75}
    low, high = samples["pass_at"]["1"]["interval_95"]
    assert 0 < low < 1 / 3 < high < 1
    assert [len(json.loads(line)["samples"]) for line in details.read_text().splitlines()] == [3, 3, 2, 3]
    main(["score", str(answers), "--questions", str(questions)])
    shown = capsys.readouterr().out
    assert "one of 2 is right (pass@2)" in shown
    assert "  samples without a line, so not right: 1" in shown
