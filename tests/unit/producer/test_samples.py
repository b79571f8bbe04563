"""Several samples of each question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from producer.answers.answers_file import AnswersFile
from producer.answers.destination import destination
from producer.answers.exporter import export
from producer.answers.reader import opened_lines
from producer.options import ReadingLimits
from producer.questions.question_file import check_questions, read_checked
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.samples import Samples
from producer.questions.sources import Source
from wire.errors import UsageError

LIMITS = ReadingLimits()


def asked(path: Path, samples: Samples) -> list[ParsedQuestion | Invalid]:
    """What is asked of a file."""
    source = Source((path,), samples=samples)
    checked = check_questions(source, LIMITS, skip_invalid=True)
    questions = list(read_checked(source, LIMITS, checked))
    assert [question.index for question in questions] == list(range(checked.count))
    assert len({question.request_id for question in questions}) == checked.count
    return questions


def test_each_sample_has_an_id_and_a_seed_of_its_own(tmp_path: Path) -> None:
    """Both are the same however many samples there are; what cannot be asked has as many lines as any question."""
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "a", "question": "?"}\n{"id": "a", "question": "!"}\n{"question": "?", "params": {"seed": 7}}\n{\n'
        '{"id": "a#2", "question": "?"}\n'
    )

    two, three = (asked(path, Samples(count, 40)) for count in (2, 3))

    assert [one.request_id for one in three[:3]] == ["a#1", "a#2", "a#3"]
    usable = [one for one in three if isinstance(one, ParsedQuestion)]
    assert [one.params["seed"] for one in usable] == [40, 41, 42, 7, 8, 9]
    assert {(one.request_id, type(one)) for one in two} < {(one.request_id, type(one)) for one in three}
    assert len(three) == 3 * 5
    assert "use other ids" in str(three[-1])


def test_answers_of_fewer_samples_are_taken_over(tmp_path: Path) -> None:
    """With more samples the file is claimed as it is; with fewer, or of anything else, it is refused."""
    path, made_of = tmp_path / "a.jsonl", {"model": "stub", "samples": "2"}

    def claim(fingerprint: dict[str, str]) -> None:
        with AnswersFile(path) as answers:
            answers.claim(f"run-{fingerprint.get('samples')}", fingerprint, {}, lambda _: "rows")

    claim(made_of)
    path.write_text('{"id": "a#1", "status": "failed"}\n{"id": "a#2", "sta')
    claim({**made_of, "samples": "10"})
    assert path.read_text() == '{"id": "a#1", "status": "failed"}\n'
    claim({**made_of, "samples": "10"})
    for other in (made_of, {"model": "stub"}, {"model": "other", "samples": "12"}):
        with pytest.raises(UsageError, match="different: "):
            claim(other)


def test_a_list_of_samples_is_read_as_the_lines_that_it_was_made_of(tmp_path: Path) -> None:
    """Ordered by question and sample, whatever came first."""
    questions = tmp_path / "q.jsonl"
    questions.write_text("".join(f'{{"id": "{name}", "question": "?"}}\n' for name in ("b", "a", "c#10")))
    lines, listed, again = (tmp_path / name for name in ("a.jsonl", "list.jsonl", "again.jsonl"))
    records = [
        {"id": "a#2", "status": "failed", "error": {"kind": "expired"}, "metadata": {"m": 1}},
        {"id": "c#10#1", "status": "answered", "text": "z", "params": {"seed": 4}},
        {"id": "b#1", "status": "answered", "text": "x", "params": {"seed": 0}},
        {"id": "a#1", "status": "answered", "text": "y", "params": {"seed": 0}, "metadata": {"m": 1}},
    ]
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    source = Source((questions,))
    checked = check_questions(source, LIMITS)

    for start, path in ((lines, listed), (listed, again)):
        export(start, destination(path, is_listed=path == listed), {}, lambda: read_checked(source, LIMITS, checked))

    found = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(line["id"], len(line.get("samples", ()))) for line in found] == [("b", 1), ("a", 2), ("c#10", 1)]
    assert [(one["sample"], one.get("seed"), one["status"]) for one in found[1]["samples"]] == [
        (1, 0, "answered"),
        (2, None, "failed"),
    ]
    ordered = [json.loads(line) for line in again.read_text().splitlines()]
    assert ordered == [records[2], records[3], records[0], records[1]]
    with opened_lines(listed) as answers:
        assert sum(1 for _ in answers.as_they_came()) == len(records)
    with pytest.raises(UsageError, match="each sample has a row of its own"):
        destination(tmp_path / "a.csv", is_listed=True)


def test_a_second_line_of_a_sample_is_named(tmp_path: Path) -> None:
    """As a second line of a question is, so that no sample counts twice."""
    questions, lines = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    questions.write_text('{"id": "a", "question": "?"}\n')
    lines.write_text('{"id": "a#1", "status": "answered", "text": ""}\n' * 2)
    source = Source((questions,))
    checked = check_questions(source, LIMITS)

    with (
        pytest.raises(UsageError, match=r"a\.jsonl:2: its id 'a#1' is that of .*a\.jsonl:1 already"),
        opened_lines(lines) as answers,
        answers.in_order(lambda: read_checked(source, LIMITS, checked)),
    ):
        pass
