"""A whole file: checked in one pass, read in another, with equal ids found on the way."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.options import ReadingLimits
from producer.questions import duplicates
from producer.questions.checked import Checked
from producer.questions.question_file import Invalid, ParsedQuestion, check_questions, read_checked, read_questions
from tests.builders import a_source
from wire.errors import UsageError
from wire.parameters import RESERVED

LIMITS = ReadingLimits()
GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k_test.jsonl"

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
prompts = text.filter(lambda value: bool(value) and not value.isspace())
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
objects = st.dictionaries(text, scalars | st.lists(scalars, max_size=2), max_size=3)
extra = objects.filter(RESERVED.isdisjoint)
contents = (
    st.fixed_dictionaries({"question": prompts})
    | st.fixed_dictionaries({"prompt": prompts})
    | st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.just("user"), "content": prompts}), min_size=1, max_size=2
            )
        }
    )
    | st.fixed_dictionaries({"question": prompts, "answer": scalars, "source": scalars})
)
options = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text("abc1", min_size=1, max_size=5) | st.integers(0, 10**6),
        "model": prompts,
        "params": st.fixed_dictionaries({}, optional={"extra_body": extra, "seed": st.integers(0, 9), "user": text}),
        "priority": st.integers(0, 9),
        "deadline_s": st.floats(0.1, 1e6) | st.integers(1, 100),
    },
)
questions = st.builds(lambda content, option: {**content, **option}, contents, options)
files = st.lists(questions, min_size=1, max_size=6, unique_by=lambda question: str(question.get("id", id(question))))


def lines(*values: object) -> bytes:
    """JSON Lines; bytes stand for a line as it is."""
    return b"".join((value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n" for value in values)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a file of questions."""

    def write(content: bytes) -> Path:
        path = tmp_path / "questions.jsonl"
        path.write_bytes(content)
        return path

    return write


def problems(path: Path) -> str:
    """The report on a file with bad lines."""
    with pytest.raises(UsageError) as caught:
        check_questions(a_source(path), LIMITS)
    return str(caught.value)


@given(files, st.sampled_from([None, 2]))
def test_both_formats_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, asked: list[dict[str, Any]], indent: int | None
) -> None:
    """The same questions as lines and as an array have the same ids, contents and fingerprint, in the same order."""
    folder = tmp_path_factory.getbasetemp()
    as_lines, as_array = folder / "a.jsonl", folder / "a.json"
    as_lines.write_bytes(lines(*asked))
    as_array.write_text(json.dumps(asked, indent=indent, ensure_ascii=False), encoding="utf-8")

    of_lines, of_array = check_questions(a_source(as_lines), LIMITS), check_questions(a_source(as_array), LIMITS)

    assert (
        (of_lines.count, of_lines.fingerprint)
        == (of_array.count, of_array.fingerprint)
        == (len(asked), of_lines.fingerprint)
    )
    assert list(read_checked(a_source(as_lines), LIMITS, of_lines)) == list(
        read_checked(a_source(as_array), LIMITS, of_array)
    )


@pytest.mark.parametrize(
    "changed",
    [
        [{"id": "a", "question": "1"}, {"id": "b", "question": "3"}],
        [{"id": "a", "question": "1"}, {"id": "c", "question": "2"}],
        [{"id": "b", "question": "2"}, {"id": "a", "question": "1"}],
        [{"id": "a", "question": "1"}, {"id": "b", "question": "2", "model": "m"}],
        [{"id": "a", "question": "1"}, {"id": "b", "question": "2", "params": {"n": 1}}],
        [{"id": "a", "question": "1"}, {"id": "b", "question": "2", "metadata": {"n": 1}}],
        [{"id": "a", "question": "1"}, {"id": "b", "messages": [{"role": "user", "content": "2"}]}],
        [{"id": "a", "question": "1"}],
    ],
)
def test_the_fingerprint_changes_with_what_is_asked(
    written: Callable[[bytes], Path], changed: list[dict[str, Any]]
) -> None:
    """Another id, content, order, model, parameter, metadata or number of questions is another run."""
    before = check_questions(
        a_source(written(lines({"id": "a", "question": "1"}, {"id": "b", "question": "2"}))), LIMITS
    )
    after = check_questions(a_source(written(lines(*changed))), LIMITS)

    assert before.fingerprint != after.fingerprint


def test_problems_are_listed_by_line(written: Callable[[bytes], Path]) -> None:
    """The first ones with file, line and reason, the number of the others, and the way out.

    The same words come three times at most.
    """
    path = written(lines({"question": "Why?"}, b"", *[b"{"] * 22, {"id": "a", "question": ""}))

    report = problems(path).splitlines()

    assert report[0] == f"{path}: 23 of 24 questions cannot be used"
    assert report[1].startswith(f"{path}:3: it is not JSON (")
    assert report[3].startswith(f"{path}:5: it is not JSON (")
    assert report[4] == "... and 20 more"
    assert "docs/formats.md" in report[5]
    assert "--skip-invalid" in report[6]


def test_a_column_that_no_row_has_is_not_said_for_every_row(written: Callable[[bytes], Path]) -> None:
    """Skipping them all would leave nothing, so that is not the advice."""
    path = written(lines(*[{"question": ""}] * 100))

    report = problems(path).splitlines()

    assert len(report) == 6
    assert report[4] == "... and 97 more"
    assert "--skip-invalid" not in report[5]


def test_twenty_different_problems_are_all_said(written: Callable[[bytes], Path]) -> None:
    """And no more of them."""
    path = written(lines({"question": "Why?"}, *[{"question": "Why?", f"field{number}": 1} for number in range(30)]))

    report = problems(path).splitlines()

    assert report[20].startswith(f"{path}:21: ")
    assert report[21] == "... and 10 more"


def test_problems_of_an_array_are_listed_by_element(written: Callable[[bytes], Path]) -> None:
    """An array has no lines to speak of."""
    path = written(b'[{"question": "Why?"},\n\n{"question": ""}]')

    assert f"{path}: element 2: `question` is empty" in problems(path)


def test_an_id_that_is_used_twice_names_both_lines(written: Callable[[bytes], Path]) -> None:
    """An integer and its digits are the same id, and the list stays in the order of the file."""
    path = written(
        lines({"id": 7, "question": "Why?"}, {"id": "x", "question": "Why?"}, {"id": "7", "question": "What?"}, b"{")
    )

    report = problems(path).splitlines()

    assert report[0] == f"{path}: 2 of 4 questions cannot be used"
    assert report[1].startswith(f"{path}:3: its id is already that of line 1")
    assert report[2].startswith(f"{path}:4: it is not JSON")


def test_with_skip_invalid_every_question_has_an_id_of_its_own(written: Callable[[bytes], Path]) -> None:
    """The later of two equal ids gives way, but never a question that can be asked to one that cannot."""
    path = written(
        lines(
            {"id": "a", "question": "1"},
            {"id": "a", "question": "2"},
            {"id": "b", "question": ""},
            {"id": "b", "question": "4"},
            {"id": "c", "question": ""},
            {"id": "c", "question": ""},
            b"{",
        )
    )

    checked = check_questions(a_source(path), LIMITS, skip_invalid=True)
    found = list(read_checked(a_source(path), LIMITS, checked))

    assert [(type(question), question.request_id) for question in found] == [
        (ParsedQuestion, "a"),
        (Invalid, "invalid-line-2"),
        (Invalid, "invalid-line-3"),
        (ParsedQuestion, "b"),
        (Invalid, "c"),
        (Invalid, "invalid-line-6"),
        (Invalid, "invalid-line-7"),
    ]
    assert (checked.count, checked.invalid) == (7, 5)
    assert isinstance(found[1], Invalid)
    assert "already that of line 1" in found[1].reason
    assert isinstance(found[2], Invalid)
    assert "`question` is empty" in found[2].reason


any_ids = st.lists(
    st.tuples(st.sampled_from(["a", "b", "7", 7, "invalid-line-2", None]), st.sampled_from(["Why?", ""])),
    min_size=1,
    max_size=8,
)


@given(any_ids)
def test_what_is_read_is_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[Any, str]]
) -> None:
    """After a check, ids are unique, indices have no gap, and the counts are right, whatever was in the file."""
    path = tmp_path_factory.getbasetemp() / "b.jsonl"
    path.write_bytes(lines(*({"id": request_id, "question": question} for request_id, question in asked)))

    checked = check_questions(a_source(path), LIMITS, skip_invalid=True)
    found = list(read_checked(a_source(path), LIMITS, checked))

    assert len({question.request_id for question in found}) == checked.count == len(asked)
    assert [question.index for question in found] == list(range(len(asked)))
    assert sum(isinstance(question, Invalid) for question in found) == checked.invalid


def test_far_too_many_equal_ids_are_one_problem(
    written: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With or without --skip-invalid: such a file was made wrongly."""
    monkeypatch.setattr(duplicates, "MOST_DUPLICATES", 3)
    path = written(lines(*[{"id": "a", "question": "Why?"}] * 4))
    assert check_questions(a_source(path), LIMITS, skip_invalid=True).invalid == 3
    path = written(lines(*[{"id": "a", "question": "Why?"}] * 5))

    with pytest.raises(UsageError, match="more than 3 questions have the id of another"):
        check_questions(a_source(path), LIMITS, skip_invalid=True)


def _touched(path: Path, _: Checked) -> None:
    os.utime(path, ns=(0, 0))


def _longer(path: Path, _: Checked) -> None:
    with path.open("ab") as file:
        file.write(lines({"question": "And?"}))


def _replaced(path: Path, _: Checked) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [_touched, _longer, _replaced])
@pytest.mark.parametrize("already_read", [0, 1])
def test_a_file_that_changed_after_the_check_is_refused(
    written: Callable[[bytes], Path], change: Callable[[Path, Checked], None], already_read: int
) -> None:
    """Before the first question, or in the middle of them."""
    path = written(lines({"question": "Why?"}, {"question": "What?"}))
    checked = check_questions(a_source(path), LIMITS)
    reader = read_checked(a_source(path), LIMITS, checked)
    for _ in range(already_read):
        next(reader)

    change(path, checked)

    with pytest.raises(UsageError, match="it changed while it was read"):
        list(reader)


def test_real_problems_are_read_as_they_are(written: Callable[[bytes], Path]) -> None:
    """The shape of GSM8K: question and worked answer, no ids."""
    path = GSM8K if GSM8K.exists() else written(lines(*[{"question": "Why?", "answer": "#### 1"}] * 1319))

    checked = check_questions(a_source(path), LIMITS)
    found = list(read_checked(a_source(path), LIMITS, checked))

    assert (checked.count, checked.invalid, len(found)) == (1319, 0, 1319)
    assert all(
        isinstance(question, ParsedQuestion) and question.metadata and "####" in str(question.metadata["answer"])
        for question in found
    )


@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, *, array: bool) -> None:
    """40 MB of questions in less than 12 MB: no question outlives the next."""
    path = tmp_path / "many"
    with path.open("w", encoding="utf-8") as file:
        for number in range(5_000):
            file.write("[" if array and not number else "," if array else "")
            file.write(json.dumps({"id": f"q{number}", "question": "Why? " * 1600}) + "\n")
        file.write("]" if array else "")

    tracemalloc.start()
    try:
        checked = check_questions(a_source(path), LIMITS)
        last = sum(1 for _ in read_checked(a_source(path), LIMITS, checked))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert last == checked.count == 5_000
    assert peak < 12_000_000


@pytest.mark.parametrize("array", [False, True], ids=["line", "element"])
def test_a_question_of_50_mb_is_passed_over_unread(tmp_path: Path, *, array: bool) -> None:
    """It costs no memory, and the question behind it is read."""
    path = tmp_path / "long"
    long, short = '{"question": "' + "x" * 50_000_000 + '"}', '{"question": "Why?"}'
    path.write_text(f"[{long},{short}]" if array else f"{long}\n{short}\n", encoding="utf-8")

    tracemalloc.start()
    try:
        found = list(read_questions(a_source(path), LIMITS))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert [type(question) for question in found] == [Invalid, ParsedQuestion]
    assert isinstance(found[0], Invalid)
    assert "at most 1048576 are allowed" in found[0].reason
    assert peak < 8_000_000
