"""Records of questions that are asked again, until they are in the places of the failures."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from producer.answers.answers_file import AnswersFile
from producer.answers.retry_journal import RetryJournal
from producer.options import ReadingLimits
from producer.questions.question_file import Source, check_questions
from producer.resume import FileRun, take_stock
from tests.builders import an_answer
from wire.messages import Answer, ErrorDetail, Failure

KINDS = ("timed_out", "prompt_too_long", "cancelled")


def a_run(folder: Path, count: int) -> FileRun:
    """Questions q0, q1, ... in a file."""
    questions = folder / "questions.jsonl"
    questions.write_bytes(b"".join(orjson.dumps({"id": f"q{n}", "question": "?"}) + b"\n" for n in range(count)))
    source, limits = Source((questions,)), ReadingLimits()
    return FileRun(
        "run", source, check_questions(source, limits), limits, "stub", {"questions": "x", "count": str(count)}
    )


def record(number: int, kind: str, text: str) -> Answer | Failure:
    """A failure of a kind, or an answer where there is none."""
    if not kind:
        return an_answer(f"q{number}", text=text)
    error = ErrorDetail(kind=kind, message=text, retryable=kind == "timed_out")
    return Failure(run="run", index=number, request_id=f"q{number}", attempts=1, error=error)


@given(
    st.lists(st.sampled_from(("", *KINDS)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(("", *KINDS)), st.booleans()), max_size=12),
)
def test_a_retry_ends_with_the_same_lines_wherever_it_is_killed(
    first: list[str], again: list[tuple[int, str, bool]]
) -> None:
    """Every question has one line at any time, and in the end the last thing that is known of it; none is asked twice.

    `again` is what comes of those that are asked again, and whether the program is killed after it.
    """
    folder = Path(tempfile.mkdtemp())
    what = a_run(folder, len(first))
    path = folder / "answers.jsonl"
    with AnswersFile(path) as answers:
        take_stock(what, answers)
        answers.write([record(number, kind, "first") for number, kind in enumerate(first)])
    expected = dict(enumerate(zip(first, ["first"] * len(first), strict=True)))
    wanted = {number for number, kind in enumerate(first) if kind == "timed_out"}
    outcomes = list(again)
    while True:
        with AnswersFile(path) as answers, RetryJournal(answers, frozenset()) as journal:
            journal.begin(what)
            stock = take_stock(what, answers)
            assert journal.reopen(what, stock) == len(wanted) == stock.tally.questions - stock.tally.on_disk
            journal.claim("run", what.fingerprint, {}, lambda _: "")
            is_killed = False
            for number in sorted(wanted):
                _, kind, is_killed = outcomes.pop() if outcomes else (0, "", False)
                journal.write([record(number, kind, "again")])
                wanted.discard(number)
                if kind != "cancelled":
                    expected[number] = (kind, "again")
                if is_killed:
                    break
            if not is_killed:
                journal.conclude(is_complete=True)
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        assert [line["id"] for line in lines] == [f"q{number}" for number in range(len(first))]
        if not is_killed:
            break
    found = [(line.get("error", {}).get("kind", ""), line.get("text") or line["error"]["message"]) for line in lines]
    assert found == [expected[number] for number in range(len(first))]
    assert sorted(file.name for file in folder.iterdir()) == ["answers.jsonl", "answers.jsonl.run", "questions.jsonl"]
    shutil.rmtree(folder)


def test_kinds_that_no_retry_helps_are_asked_only_where_they_are_named(tmp_path: Path) -> None:
    """Without a kind those that are retryable, with one those alone."""
    what = a_run(tmp_path, 3)
    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        take_stock(what, answers)
        answers.write([record(0, "timed_out", ""), record(1, "prompt_too_long", ""), record(2, "", "yes")])
        for kinds, expected in (((), [0b01111111]), (("prompt_too_long",), [0b10111111]), (("expired",), [0b11111111])):
            with RetryJournal(answers, frozenset(kinds)) as journal:
                stock = take_stock(what, answers)
                journal.reopen(what, stock)
                assert [stock.written[0] | 0b00011111] == expected
