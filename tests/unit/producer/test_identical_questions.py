"""Identical questions are asked once: which ones these are, and what becomes of them after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from producer.answers.answers_file import AnswersFile
from producer.options import ReadingLimits
from producer.questions.question_file import check_questions, read_questions
from producer.questions.question_parser import ParsedQuestion
from producer.questions.sources import Source
from producer.resume import FileRun, take_stock
from producer.reuse.cache import AnswerCache
from producer.reuse.identical import IdenticalQuestions, Identity
from tests.builders import an_answer

LIMITS = ReadingLimits()
GREEDY = Identity("stub", {"temperature": 0.0, "max_tokens": 20}, {"kind": "stub"})
SAME: dict[str, Any] = {"question": "Why?"}


def a_run(path: Path, *questions: dict[str, Any]) -> FileRun:
    """A run of these questions."""
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    checked = check_questions(Source((path,)), LIMITS)
    return FileRun("run-1", Source((path,)), checked, LIMITS, "stub", {"questions": checked.fingerprint})


@pytest.mark.parametrize(
    ("other", "is_shared"),
    [
        ({**SAME, "id": "x", "metadata": {"m": 1}, "priority": 4}, True),
        ({"prompt": "Why?", "params": {"max_completion_tokens": 20}, "model": "stub"}, True),
        ({**SAME, "question": "Why? "}, False),
        ({"messages": [{"role": "user", "content": "Why?"}]}, False),
        ({**SAME, "model": "stub-2"}, False),
        ({**SAME, "params": {"max_tokens": 21}}, False),
        ({**SAME, "params": {"seed": 1}}, False),
        ({**SAME, "params": {"temperature": 0.1}}, False),
        ({**SAME, "params": {"temperature": None}}, False),
        ({**SAME, "deadline_s": 5}, False),
        ({"input": "Why?"}, False),
    ],
)
def test_only_what_asks_the_same_in_the_same_way_is_identical(
    tmp_path: Path, other: dict[str, Any], *, is_shared: bool
) -> None:
    """Content, model and every parameter; id, metadata and priority are the question's own."""
    what = a_run(tmp_path / "q.jsonl", SAME, other)

    first, second = (one for one in read_questions(what.questions, LIMITS) if isinstance(one, ParsedQuestion))

    assert (GREEDY.key_of(first) == GREEDY.key_of(second)) is is_shared
    assert second.task == "generate" or GREEDY.key_of(second) is None, "vectors have no temperature"
    assert GREEDY.key_of(first) != Identity("stub", GREEDY.sampling, {"kind": "vllm"}).key_of(first)
    assert Identity("stub", {}).key_of(first) is None, "a temperature that nobody knows is not 0"


def test_what_a_crash_has_left_out_is_taken_from_the_lines_that_are_there(tmp_path: Path) -> None:
    """Also if the line is of a later question; a failure is no answer, so one of those with its question is asked."""
    what = a_run(
        tmp_path / "q.jsonl",
        *({"id": name, "question": name[0], "metadata": {"of": name}} for name in ("a1", "a2", "a3", "b1", "b2", "c1")),
    )
    with AnswersFile(tmp_path / "a.jsonl") as answers:
        take_stock(what, answers)
        answers.write([an_answer("a2", index=1, text="an answer", params={"temperature": 0.0})])
        with (tmp_path / "a.jsonl").open("ab") as file:
            file.write(b'{"id": "b1", "status": "failed", "error": {"kind": "expired"}, "attempts": 1}\n')

        stock = take_stock(what, answers)
        with IdenticalQuestions(what, GREEDY) as identical:
            identical.take_over(stock, answers)

            assert (stock.tally.taken_over, stock.tally.on_disk, stock.tally.shared) == (2, 4, 2)
            assert not any(map(identical.waits, range(6))), "b2 and c1 are asked, each for itself"
        lines = {line["id"]: line for line in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())}
        assert len(lines) == 4
        assert take_stock(what, answers).written == stock.written
    assert lines["a3"] == {
        **lines["a1"],
        "id": "a3",
        "metadata": {"of": "a3"},
    }
    assert (lines["a1"]["shared"], lines["a1"]["text"], lines["a1"]["attempts"]) == ({"with": "a2"}, "an answer", 0)


def test_a_record_brings_those_of_the_questions_that_wait_for_it(tmp_path: Path) -> None:
    """In one write, with their own ids and metadata; a failure, too, but only answers are kept for other runs."""
    names = ("a1", "b1", "a2", "b2")
    what = a_run(tmp_path / "q.jsonl", *({"id": name, "question": name[0], "metadata": {"of": name}} for name in names))
    with AnswersFile(tmp_path / "a.jsonl") as answers, AnswerCache(tmp_path / "cache", 10**6) as cache:
        with IdenticalQuestions(what, GREEDY, cache) as identical:
            identical.take_over(take_stock(what, answers), answers)
            assert [identical.waits(index) for index in range(4)] == [False, False, True, True]
            assert identical.waiting_for(0) == [2]

            found = identical.with_shared([an_answer("a1", metadata={"of": "a1"}, worker="w")])

        assert [(one.request_id, one.index, one.metadata, one.worker) for one in found] == [
            ("a1", 0, {"of": "a1"}, "w"),
            ("a2", 2, {"of": "a2"}, None),
        ]
        assert cache.stats().models == {"stub": 1}
        # Another run, of another file.
        again = a_run(tmp_path / "r.jsonl", {"id": "z", "question": "a"}, {"id": "y", "question": "b"})
        with AnswersFile(tmp_path / "z.jsonl") as lines, IdenticalQuestions(again, GREEDY, cache) as identical:
            identical.take_over(take_stock(again, lines), lines)
    (line,) = map(json.loads, (tmp_path / "z.jsonl").read_text().splitlines())
    assert (line["id"], line["text"], line["shared"]) == ("z", "42", {"with": "a1", "run": "run-1"})
    assert "metadata" not in line, "that of the other question is its own"
