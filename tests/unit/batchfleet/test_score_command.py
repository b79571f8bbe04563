"""`batchfleet score`, on files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from batchfleet.cli.main import main
from batchfleet.cli.sweep import _accuracy
from batchfleet.runs.run_file import RunRequest
from batchfleet.settings.schema import Settings


def an_answer(number: int, text: str) -> dict[str, Any]:
    """A line of an answers file."""
    return {"id": f"q{number}", "status": "answered", "text": text, "finish_reason": "stop", "attempts": 1}


def a_failure(number: int) -> dict[str, Any]:
    """A line of a question that failed."""
    return {
        "id": f"q{number}",
        "status": "failed",
        "error": {"kind": "expired", "message": "too late", "retryable": True},
        "attempts": 1,
    }


def write(path: Path, lines: Iterable[dict[str, Any]]) -> str:
    """Write JSON lines; returns the path."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def key(tmp_path: Path) -> str:
    """Six questions; the last one has no known answer."""
    answers = ["B", "B", "C", "42", "#### 1,000", "nobody knows for sure"]
    lines = [
        {"id": f"q{number}", "question": "?", "answer": answer, "subject": "units" if number < 3 else "sums"}
        for number, answer in enumerate(answers)
    ]
    return write(tmp_path / "questions.jsonl", lines)


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command."""
    code = main(["score", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_what_was_not_answered_stays_in_the_denominator(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed, unanswered and unclear are counted apart, and none of them helps the accuracy; order does not matter."""
    answers = write(
        tmp_path / "a.jsonl",
        [
            an_answer(3, "It is 42."),
            an_answer(0, "The answer is B."),
            an_answer(1, "A or B"),
            a_failure(2),
            an_answer(5, "x"),
        ],
    )

    code, found = scored(capsys, answers, "--key", key)

    score = found["scores"][0]
    assert (
        score["questions"],
        score["right"],
        score["wrong"],
        score["unclear"],
        score["failed"],
        score["unanswered"],
    ) == (5, 2, 0, 1, 1, 1)
    assert score["accuracy"] == 0.4
    assert score["unclear_because"] == {"several": 1}
    assert (found["without_key"], found["keys"], found["rules"]) == (1, {"choice": 3, "number": 2}, "1")
    assert code == 3


def test_groups_come_from_the_questions(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So that those without an answer are in their group too."""
    answers = write(
        tmp_path / "a.jsonl",
        [an_answer(0, "B"), an_answer(1, "C"), an_answer(2, "C"), an_answer(3, "42"), a_failure(4)],
    )

    code, found = scored(capsys, answers, "--key", key, "--by", "metadata.subject")

    groups = found["scores"][0]["groups"]
    assert {name: (group["right"], group["questions"]) for name, group in groups.items()} == {
        "units": (2, 3),
        "sums": (1, 2),
    }
    assert code == 1


def test_files_are_compared_question_by_question(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The difference counts questions that one alone has right; they are listed on request."""
    texts = ["B", "B", "C", "42", "1000"]
    first = write(tmp_path / "a.jsonl", [an_answer(number, text) for number, text in enumerate(texts)])
    second = write(tmp_path / "b.jsonl", [an_answer(number, "B") for number in range(5)])
    disputed = tmp_path / "disputed.jsonl"

    code, found = scored(capsys, first, second, "--key", key, "--disagreements", str(disputed))

    comparison = found["comparisons"][0]
    assert (comparison["both_right"], comparison["only_first_right"], comparison["only_second_right"]) == (2, 3, 0)
    assert (comparison["difference"], comparison["p_value"]) == (-0.6, 0.25)
    assert [json.loads(line)["id"] for line in disputed.read_text().splitlines()] == ["q2", "q3", "q4"]
    assert code == 0


def test_every_two_files_are_compared(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three files are three pairs, each with its own counts, in one table; what chance may do to many comparisons is allowed for."""
    right = ["B", "B", "C", "42", "1000"]
    files = [
        write(
            tmp_path / f"{name}.jsonl",
            [an_answer(number, text if number < known else "J or A") for number, text in enumerate(right)],
        )
        for name, known in (("a", 5), ("b", 3), ("c", 1))
    ]

    _, found = scored(capsys, *files, "--key", key)
    main(["score", *files, "--key", key])

    pairs = {(Path(pair["first"]).stem, Path(pair["second"]).stem): pair for pair in found["comparisons"]}
    assert {names: (pair["only_first_right"], pair["only_second_right"]) for names, pair in pairs.items()} == {
        ("a", "b"): (2, 0),
        ("a", "c"): (4, 0),
        ("b", "c"): (2, 0),
    }
    assert (pairs["a", "c"]["p_value"], pairs["a", "c"]["p_value_holm"], pairs["b", "c"]["p_value_holm"]) == (
        0.125,
        0.375,
        1.0,
    )
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert table[0].split()[-2:] == ["p", "(Holm)"]
    assert [line.split()[0] for line in table[1:]] == [files[1], files[2], files[2]]


def test_details_say_what_was_read_by_which_rule(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each question that counts, in the order of the questions."""
    answers = write(tmp_path / "a.jsonl", [an_answer(1, "So: \\boxed{C}"), an_answer(0, "The answer is B.")])
    details = tmp_path / "details.jsonl"

    main(["score", answers, "--key", key, "--details", str(details)])

    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert [(line["id"], line["outcome"], line["value"], line["rule"]) for line in lines[:2]] == [
        ("q0", "right", "B", "stated"),
        ("q1", "wrong", "C", "box"),
    ]
    assert {line["outcome"] for line in lines[2:]} == {"unanswered"}
    assert "40.0%" not in capsys.readouterr().out


def test_what_cannot_be_scored_is_one_clear_error(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what to do."""
    good = write(tmp_path / "good.jsonl", [an_answer(0, "B")])
    stranger = write(tmp_path / "stranger.jsonl", [an_answer(99, "B")])
    keyless = write(tmp_path / "keyless.jsonl", [{"id": "q0", "question": "?"}])
    mistakes = {
        ("stranger.jsonl", "with the flags"): [stranger, "--key", key],
        ("keyless.jsonl", "--answer-column"): [good, "--key", keyless],
        ("nothing.jsonl", "cannot be read"): [str(tmp_path / "nothing.jsonl"), "--key", key],
        ("two or more", ""): [good, "--key", key, "--disagreements", str(tmp_path / "d")],
        ("good.jsonl is read", ""): [good, "--key", key, "--details", good],
    }
    for words, arguments in mistakes.items():
        assert main(["score", *arguments]) == 2

        error = capsys.readouterr().err
        assert all(word in error for word in words), error
        assert error.count("\n") == 1


def test_a_sweep_scores_runs_whose_questions_have_known_answers(tmp_path: Path, key: str) -> None:
    """By the same rules; questions without known answers, or from standard input, have no accuracy."""
    answers = write(
        tmp_path / "a.jsonl",
        [an_answer(0, "B"), an_answer(1, "(C)"), a_failure(2), an_answer(3, "42"), an_answer(4, "about 1000")],
    )
    keyless = write(tmp_path / "keyless.jsonl", [{"id": "q0", "question": "?"}])

    found = [
        _accuracy(RunRequest((questions,), tmp_path), Settings())(Path(answers)) for questions in (key, keyless, "-")
    ]

    assert found == [0.6, None, None]
