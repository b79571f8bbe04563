"""`batchfleet score`, on files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from batchfleet.cli.main import main
from batchfleet.cli.sweep import _accuracy
from batchfleet.runs.run_request import RunRequest
from batchfleet.settings.schema import Settings
from producer.options import ReadingLimits
from producer.questions.column_mapping import Shape
from producer.questions.question_file import Source, read_questions
from producer.questions.templates import PromptTemplate


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

    code, found = scored(capsys, answers, "--questions", key)

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
    assert (found["without_key"], found["keys"], found["rules"]) == (1, {"choice": 3, "number": 2}, "2")
    assert code == 3


def test_groups_come_from_the_questions(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So that those without an answer are in their group too."""
    answers = write(
        tmp_path / "a.jsonl",
        [an_answer(0, "B"), an_answer(1, "C"), an_answer(2, "C"), an_answer(3, "42"), a_failure(4)],
    )

    code, found = scored(capsys, answers, "--questions", key, "--by", "metadata.subject")

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

    code, found = scored(capsys, first, second, "--questions", key, "--disagreements", str(disputed))

    comparison = found["comparisons"][0]
    assert (comparison["both_right"], comparison["only_first_right"], comparison["only_second_right"]) == (2, 3, 0)
    assert (comparison["difference"], comparison["p_value"]) == (-0.6, 0.25)
    assert [json.loads(line)["id"] for line in disputed.read_text().splitlines()] == ["q2", "q3", "q4"]
    assert code == 0


def test_every_two_files_are_compared(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three files are three pairs, each with its own counts, in one table.

    What chance may do to many comparisons is allowed for.
    """
    right = ["B", "B", "C", "42", "1000"]
    files = [
        write(
            tmp_path / f"{name}.jsonl",
            [an_answer(number, text if number < known else "J or A") for number, text in enumerate(right)],
        )
        for name, known in (("a", 5), ("b", 3), ("c", 1))
    ]

    _, found = scored(capsys, *files, "--questions", key)
    main(["score", *files, "--questions", key])

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

    main(["score", answers, "--questions", key, "--details", str(details)])

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
        ("stranger.jsonl", "with the flags"): [stranger, "--questions", key],
        ("keyless.jsonl", "--answer-column"): [good, "--questions", keyless],
        ("nothing.jsonl", "no such file"): [str(tmp_path / "nothing.jsonl"), "--questions", key],
        ("two or more", ""): [good, "--questions", key, "--disagreements", str(tmp_path / "d")],
        ("good.jsonl is read", ""): [good, "--questions", key, "--details", good],
    }
    for words, arguments in mistakes.items():
        assert main(["score", *arguments]) == 2

        error = capsys.readouterr().err
        assert all(word in error for word in words), error
        assert error.count("\n") == 1


SUMS = [
    {"question": f"He has {number} and finds 2.", "answer": f"{number} + 2\n#### {number + 2}"} for number in range(12)
]
UNITS = (
    'question,subject,A,B,answer\n"Which unit, of force?",physics,joule,newton,B\nWhich side?,earth,to the '
    "right,left,A\n"
)
ANSWERS = {
    "sums.jsonl": [f"#### {number + 2}" for number in range(12)],
    "units.csv": ["It is newton.", "A) to the right"],
}
FORMS = {
    "chat": Shape(chat=True),
    "system": Shape(system="Be brief."),
    "template": Shape(template=PromptTemplate("Q: {{ question }}\nA:")),
    "all": Shape(template=PromptTemplate("{{ question }}?"), system="Be brief.", chat=True),
}


@pytest.fixture
def data_sets(tmp_path: Path) -> Path:
    """Two files without ids, as GSM8K and MMLU have none."""
    write(tmp_path / "sums.jsonl", SUMS)
    (tmp_path / "units.csv").write_text(UNITS)
    return tmp_path


@pytest.mark.parametrize("name", list(ANSWERS))
@pytest.mark.parametrize("form", list(FORMS))
def test_answers_are_found_whatever_form_was_asked(
    data_sets: Path, capsys: pytest.CaptureFixture[str], name: str, form: str
) -> None:
    """Ids are those of the rows, so that neither flags nor the run's own notes are needed to compare several forms."""
    asked = list(read_questions(Source((data_sets / name,), FORMS[form]), ReadingLimits()))
    plain = list(read_questions(Source((data_sets / name,)), ReadingLimits()))
    answers = [
        {**an_answer(0, text), "id": question.request_id} for question, text in zip(asked, ANSWERS[name], strict=True)
    ]
    plain_answers = [{**line, "id": question.request_id} for question, line in zip(plain, answers, strict=True)]
    files = [write(data_sets / "a.jsonl", answers[::-1]), write(data_sets / "b.jsonl", plain_answers)]

    code, found = scored(capsys, *files, "--questions", str(data_sets / name))

    assert (code, [score["accuracy"] for score in found["scores"]]) == (0, [1.0, 1.0])


def test_answers_of_an_earlier_version_are_found(data_sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It derived ids from what was asked in the form in which it was asked.

    That form is needed, and named where it is missing.
    """
    shape = Shape(chat=True, ids_as_asked=True)
    asked = read_questions(Source((data_sets / "sums.jsonl",), shape), ReadingLimits())
    answers = write(data_sets / "a.jsonl", [{**an_answer(0, "1"), "id": question.request_id} for question in asked])
    write(data_sets / "a.jsonl.run", [{"run": "r", "fingerprint": {"asked as": "chat"}}])

    code, _ = scored(capsys, answers, "--questions", str(data_sets / "sums.jsonl"), "--chat")
    refused = main(["score", answers, "--questions", str(data_sets / "sums.jsonl")])

    assert (code, refused) == (0, 2)
    assert "question 1 (line 1) is not the one that was answered" in (error := capsys.readouterr().err)
    assert "with the flags that they were asked with (chat)" in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({7: {"question": "Changed?", "answer": "#### 1"}}, "question 8 (line 8) is not the one that was answered"),
        ({11: None}, "it has an answer to question 12, and there are fewer"),
    ],
)
def test_a_changed_row_is_named(
    data_sets: Path, capsys: pytest.CaptureFixture[str], change: dict[int, dict[str, Any] | None], words: str
) -> None:
    """By its number, never by a place in bytes."""
    asked = read_questions(Source((data_sets / "sums.jsonl",)), ReadingLimits())
    answers = write(data_sets / "a.jsonl", [{**an_answer(0, "1"), "id": question.request_id} for question in asked])
    rows = [change.get(number, row) for number, row in enumerate(SUMS)]
    write(data_sets / "sums.jsonl", [row for row in rows if row is not None])

    code = main(["score", answers, "--questions", str(data_sets / "sums.jsonl")])

    assert (code, words in (error := capsys.readouterr().err), "byte" in error) == (2, True, False), error


def test_what_editors_leave_is_no_mistake(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte order mark, blank lines, and a last line without its end. A double line is named with its twin."""
    answers = Path(write(tmp_path / "a.jsonl", [an_answer(0, "B"), an_answer(1, "B")]))
    tidy = answers.read_bytes()
    answers.write_bytes(b"\xef\xbb\xbf" + tidy.replace(b"\n", b"\n\n", 1).rstrip())

    _, found = scored(capsys, str(answers), "--questions", key)
    answers.write_bytes(tidy + b"\n" + tidy)
    doubled = main(["score", str(answers), "--questions", key])

    assert found["scores"][0]["right"] == 2
    assert doubled == 2
    assert "a.jsonl:4: its id 'q0' is that of" in (error := capsys.readouterr().err)
    assert "a.jsonl:1 already; remove one of them" in error


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.parquet", "a.arrow", "a.openai.jsonl", "a.jsonl.gz", "a.csv.zst"]
)
def test_answers_are_read_in_every_format_that_is_written(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """They score the same, and come back the same."""
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    lines = [
        {**an_answer(number, text), "usage": usage, "model": "m"}
        for number, text in enumerate(["B", "", 'say "C",\nC'])
    ]
    answers = write(tmp_path / "a.jsonl", [*lines, a_failure(3), a_failure(4)])

    assert main(["convert", answers, "-o", str(tmp_path / name)]) == 0
    assert main(["convert", str(tmp_path / name), "-o", str(tmp_path / "back.jsonl")]) == 0
    capsys.readouterr()
    code, found = scored(capsys, str(tmp_path / name), "--questions", key)

    score = found["scores"][0]
    assert (code, score["right"], score["unclear_because"], score["failed"]) == (1, 2, {"empty": 1}, 2)
    back = [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines()]
    lost = ("attempts",) if "openai" in name else ()
    failed = [{"kind": "expired", "message": "too late", "retryable": "openai" not in name}] * 2
    assert back[:3] == [{field: value for field, value in line.items() if field not in lost} for line in lines]
    assert [line["error"] for line in back[3:]] == failed


def test_the_output_of_an_openai_batch_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A status of 400 in it is a failure, as is an error in place of a response."""
    completion = {
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "The answer is B."}, "finish_reason": "stop"}
        ],
    }
    parts = {"choices": [{"message": {"content": [{"type": "text", "text": "B"}]}, "finish_reason": "stop"}]}
    output = {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": "B"}]}]}
    too_long = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    responses: list[dict[str, Any]] = [
        {"response": {"status_code": 200, "body": completion}, "error": None},
        {"response": {"status_code": 200, "body": parts}, "error": None},
        {"response": {"status_code": 200, "body": output}, "error": None},
        {"response": {"status_code": 400, "body": too_long}, "error": None},
        {"response": {"status_code": 200, "body": {"choices": [{"finish_reason": "stop"}]}}, "error": None},
        {"response": None, "error": {"code": "batch_expired", "message": "expired"}},
    ]
    answers = write(tmp_path / "o.jsonl", ({"id": "x", "custom_id": f"q{n}", **one} for n, one in enumerate(responses)))
    key = write(tmp_path / "k.jsonl", ({"id": f"q{n}", "question": "A) x\nB) y", "answer": "B"} for n in range(6)))
    details = tmp_path / "d.jsonl"

    code, found = scored(capsys, answers, "--questions", key, "--details", str(details))

    assert (code, found["scores"][0]["right"], found["scores"][0]["failed"]) == (1, 3, 3)
    whys = [json.loads(line)["why"] for line in details.read_text().splitlines()]
    assert whys[3:] == ["context_length_exceeded", "no_answer", "batch_expired"]


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


def test_a_field_that_no_question_has_is_named(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One group of all of them would look like an answer."""
    answers = write(tmp_path / "answers.jsonl", [an_answer(number, "B") for number in range(6)])

    main(["score", answers, "--key", key, "--by", "metadata.topic"])
    unknown = capsys.readouterr().err
    main(["score", answers, "--key", key, "--by", "subject"])
    known = capsys.readouterr().err

    assert "warning: --by metadata.topic: no question has such a field in its metadata" in unknown
    assert known == ""
