"""`--update` on disk: whatever is edited and wherever it stops, lines are answers to the rows that bear them."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.signals import Interruption
from batchfleet.runs.update import described, update
from producer.answers.answers_file import AnswersFile
from producer.answers.sidecar import IS_UPDATED
from producer.answers.update import Update
from producer.options import ProducerOptions, ReadingLimits
from producer.questions.duplicates import is_set
from producer.questions.question_file import check_questions, read_checked
from producer.questions.question_parser import ParsedQuestion
from producer.questions.row_keys import KeyTaker, RowKeys
from producer.questions.sources import Source
from producer.resume import FileRun, take_stock
from tests.builders import an_answer
from wire.errors import UsageError
from wire.messages import JsonObject

Row = dict[str, Any]
_contents = st.fixed_dictionaries(
    {"question": st.sampled_from("abc")}, optional={"metadata": st.sampled_from(({"m": 1}, {"m": 2}))}
)
_files = st.lists(st.tuples(st.none() | st.integers(0, 5), _contents), min_size=1, max_size=8).map(
    lambda rows: [
        content if own in (None, *(one for one, _ in rows[:place])) else {"id": f"own{own}", **content}
        for place, (own, content) in enumerate(rows)
    ]
)
STOPS = ("after some answers", "before the lines are in place", "before the run is", "")


class Stopped(BaseException):
    """As a kill."""


def a_run(folder: Path, rows: list[Row], temperature: float = 0.0) -> FileRun:
    """What `prepare` makes of a file."""
    path, limits, keys = folder / "questions.jsonl", ReadingLimits(), RowKeys.new()
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    sampling: JsonObject = {"temperature": temperature}
    checked = check_questions(Source((path,)), limits, note=KeyTaker(keys, "stub", sampling, ""))
    keys.flush()
    made_of = {"questions": checked.fingerprint, "count": str(checked.count), "parameters": str(temperature)}
    return FileRun(f"run-{checked.fingerprint}", Source((path,)), checked, limits, "stub", made_of, keys=keys)


def carry_out(what: FileRun, path: Path, most: int, stop: str = "") -> list[str]:
    """Update the answers and answer up to `most` of what is open; returns the keys of what was asked."""
    asking = RunRequest((), path, quiet=True, updates=True)
    with pytest.MonkeyPatch.context() as patch, AnswersFile(path) as answers, suppress(Stopped):
        become = answers.become
        if stop == "before the lines are in place":
            patch.setattr(answers, "replace_lines", _stop)
        elif stop == "before the run is":
            patch.setattr(answers, "become", lambda about: become(about) if IS_UPDATED in about else _stop())
        update(what, answers, asking, Interruption(), ProducerOptions(), None, nullcontext())
        stock = take_stock(what, answers)
        questions = read_checked(what.questions, what.reading, what.checked)
        asked = [one for one in questions if not is_set(stock.written, one.index)][:most]
        for one in asked:
            assert isinstance(one, ParsedQuestion)
            text = f"{one.prompt} at {what.fingerprint['parameters']}"
            answers.write([an_answer(one.request_id, index=one.index, text=text, metadata=one.metadata)])
        return [str(what.keys and what.keys.of(one.index)) for one in asked]
    return []


def _stop(*_: object) -> None:
    raise Stopped


def keys_of(path: Path) -> Counter[str]:
    """The keys of all lines."""
    return (
        Counter(orjson.loads(line)["asked"] for line in path.read_bytes().splitlines()) if path.exists() else Counter()
    )


def lines_of(path: Path) -> list[Row]:
    """The lines, by id."""
    return sorted((orjson.loads(line) for line in path.read_bytes().splitlines()), key=lambda line: str(line["id"]))


# Without shrinking, which would take minutes: the steps are few and short as they are.
@settings(max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.lists(
        st.tuples(_files, st.sampled_from((0.0, 0.5)), st.sampled_from(STOPS), st.integers(0, 8)),
        min_size=1,
        max_size=5,
    )
)
def test_any_edits_and_interruptions_end_as_a_fresh_run_of_the_last_file(
    steps: list[tuple[list[Row], float, str, int]],
) -> None:
    """The answers are those that it would have had, and no row is asked whose answer is there already."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows, temperature, stop, most in [*steps, (*steps[-1][:2], "", 8)]:
            what = a_run(folder, rows, temperature)
            wanted = Counter(str(what.keys and what.keys.of(index)) for index in range(what.checked.count))
            before = keys_of(folder / "answers.jsonl")
            asked = Counter(carry_out(what, folder / "answers.jsonl", most, stop))
            assert asked <= wanted - before
        assert wanted == keys_of(folder / "answers.jsonl")
        carry_out(what, folder / "fresh.jsonl", 8)
        assert lines_of(folder / "answers.jsonl") == lines_of(folder / "fresh.jsonl")


@pytest.mark.parametrize("answered", [5, 10], ids=["half way", "at the end"])
@pytest.mark.parametrize(
    ("edit", "words", "asked"),
    [
        (lambda rows: [{"id": "new", "question": "new"}, *rows], "kept {kept} changed 0 new {new1} gone 0", {"new"}),
        (lambda rows: rows[:2] + rows[3:], "kept {less} changed 0 new {new} gone 1", set()),
        (lambda rows: [{**rows[0], "question": "x"}, *rows[1:]], "kept {less} changed 1 new {new} gone 0", {"q0"}),
        (
            lambda rows: [{**rows[1], "id": "q0"}, {**rows[0], "id": "q1"}, *rows[2:]],
            "kept {least} changed 2 new {new} gone 0",
            {"q0", "q1"},
        ),
        (lambda rows: rows[::-1], "kept {kept} changed 0 new {new} gone 0", set()),
    ],
    ids=["a row at the top", "a row less", "a row changed", "two ids swapped", "another order"],
)
def test_an_edit_asks_what_it_changed(tmp_path: Path, edit: Any, words: str, asked: set[str], answered: int) -> None:  # noqa: ANN401 (a function of rows)
    """By content and id: no row gets the answer of another, and none that stayed is asked again; counts are told."""
    rows: list[Row] = [{"id": f"q{number}", "question": f"What is {number}?"} for number in range(10)]
    path = tmp_path / "answers.jsonl"
    carry_out(a_run(tmp_path, rows), path, answered)
    what = a_run(tmp_path, edit(rows))
    with Update(what, path) as found:
        told = " ".join(" ".join(described(found.counts, path, keeps_removed=False)[1:]).split())

    carry_out(what, path, 20)

    open_rows = 10 - answered
    expected = words.format(kept=answered, less=answered - 1, least=answered - 2, new=open_rows, new1=open_rows + 1)
    assert told.replace(" have their line", "").startswith(expected)
    assert {line["id"]: line["text"] for line in lines_of(path)} == {
        row["id"]: f"{row['question']} at 0.0" for row in edit(rows)
    }
    outdated = tmp_path / "answers.jsonl.outdated"
    assert outdated.exists() == bool("gone 1" in words or asked - {"new"})


def test_a_row_without_an_id_is_known_by_what_it_asks(tmp_path: Path) -> None:
    """Its line moves with it to the id that its new place gives it, and so do those of equal rows, each its own."""
    path = tmp_path / "answers.jsonl"
    carry_out(a_run(tmp_path, [{"question": text} for text in "aab"]), path, 3)

    asked = carry_out(a_run(tmp_path, [{"question": text} for text in "caba"]), path, 4)

    assert len(asked) == 1
    assert [line["text"][0] for line in lines_of(path)] == ["c", "a", "b", "a"]


def test_lines_of_removed_rows_stay_where_they_are_to(tmp_path: Path) -> None:
    """Marked, so that nobody takes them for answers to a row; if the row comes back, so does its answer."""
    path = tmp_path / "answers.jsonl"
    rows: list[Row] = [{"id": name, "question": name} for name in "abc"]
    carry_out(a_run(tmp_path, rows), path, 3)
    less = a_run(tmp_path, rows[:2])
    with AnswersFile(path) as answers:
        asking = RunRequest((), path, quiet=True, updates=True, keeps_removed=True)
        update(less, answers, asking, Interruption(), ProducerOptions(), None, nullcontext())
        assert take_stock(less, answers).is_complete
    assert [line.get("removed", False) for line in lines_of(path)] == [False, False, True]

    assert carry_out(a_run(tmp_path, rows), path, 3) == []
    assert not any("removed" in line for line in lines_of(path))


def test_lines_that_do_not_say_what_they_answer_are_not_matched(tmp_path: Path) -> None:
    """Those of an earlier version: an error that says so, and nothing is changed."""
    path = tmp_path / "answers.jsonl"
    carry_out(a_run(tmp_path, [{"id": "a", "question": "a"}]), path, 1)
    old = path.read_bytes().replace(b'"asked"', b'"other"')
    path.write_bytes(old)

    with pytest.raises(UsageError, match="does not say what was asked"):
        carry_out(a_run(tmp_path, [{"id": "a", "question": "b"}]), path, 1)

    assert path.read_bytes() == old
