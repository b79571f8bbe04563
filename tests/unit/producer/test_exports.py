"""The answers file -> the format that was asked for.

Nothing is lost, nothing is half written, and order costs no memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from producer.answers import exporter
from producer.answers.answer_line import ANSWER_FIELDS, answer_line
from producer.answers.answers_file import AnswersFile
from producer.answers.columns import COLUMNS, TableLayout, row_of
from producer.answers.destination import Destination, destination
from producer.answers.exporter import ensure_writable, export
from producer.options import ReadingLimits
from producer.questions import stdin_spool
from producer.questions.compression import zstd_for
from producer.questions.question_file import read_questions
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.reuse.shared_records import SharedAnswer
from tests.builders import a_source, an_answer
from wire.errors import UsageError
from wire.messages import Answer, ErrorDetail, Failure, Usage

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
metadata = st.none() | st.dictionaries(
    texts, st.none() | texts | st.integers(-(2**53), 2**53) | st.lists(texts, max_size=2), max_size=2
)


def a_failure(request_id: str = "q2") -> Failure:
    """A failure of the same run."""
    return Failure(
        request_id=request_id,
        run="run-1",
        index=1,
        error=ErrorDetail(kind="prompt_too_long", message="9 tokens, 4 fit", retryable=False),
    )


def written(path: Path, *records: Answer | Failure) -> Path:
    """An answers file."""
    path.write_bytes(b"".join(map(answer_line, records)))
    return path


def rows_in(path: Path) -> list[dict[str, Any]]:
    """What a table holds, values as its format gives them."""
    match "".join(path.suffixes):
        case ".csv":
            return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
        case ".tsv":
            return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), delimiter="\t"))
        case ".parquet":
            found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
            return found
        case _:
            feather: list[dict[str, Any]] = pyarrow.feather.read_table(str(path)).to_pylist()
            return feather


@given(records=st.lists(st.tuples(texts, metadata, st.sampled_from([None, ["a", "b"]])), min_size=1, max_size=3))
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "arrow"])
def test_a_table_holds_all_of_an_answer(
    tmp_path_factory: pytest.TempPathFactory, ending: str, records: list[tuple[str, Any, list[str] | None]]
) -> None:
    """Every column reads back as what the line says, whatever its texts are made of; failures are rows too."""
    folder = tmp_path_factory.mktemp("table")
    answers = [
        an_answer(f"q{number}", text=text, metadata=meta, texts=several)
        for number, (text, meta, several) in enumerate(records)
    ]
    journal = written(folder / "answers.jsonl", *answers, a_failure())
    lines = [row_of(json.loads(line)) for line in journal.read_bytes().splitlines()]

    count = export(journal, destination(folder / f"out.{ending}"), {})

    found = rows_in(folder / f"out.{ending}")
    if ending in ("csv", "tsv"):
        lines = [
            {
                name: "" if value is None else str(value).lower() if value is False else str(value)
                for name, value in line.items()
            }
            for line in lines
        ]
    assert count == len(lines)
    columns = list(TableLayout().columns)
    assert found == [{name: line[name] for name in columns} for line in lines]
    assert list(found[0]) == columns


def test_every_field_of_an_answer_has_its_column() -> None:
    """A field that is added to answers must be added to tables, and to what docs/records.md is made of."""
    answer = an_answer(
        worker="w", latency_s=1.5, metadata={"a": 1}, texts=["42"], details={}, reasoning="hm", tool_calls=[{"id": "c"}]
    )
    full = SharedAnswer(**structs.asdict(answer), shared={"with": "q2"})
    two = [bytes(4), bytes(4)]
    embedded, scored = (an_answer(text="", task=task, vectors=two) for task in ("embed", "score"))
    classified = an_answer(text="", task="classify", vectors=two, details={"labels": ["a", "b"]})
    fields = [json.loads(answer_line(record, "key")) for record in (full, a_failure(), embedded, scored, classified)]

    flat = {name for line in fields for name in line} - {"usage", "error"}

    assert {name for line in fields for name in line} | {"removed"} == set(ANSWER_FIELDS)
    assert flat <= set(COLUMNS)
    found = {name for line in fields for name, value in row_of(line).items() if value is not None}
    assert {"prompt_tokens", "completion_tokens", *(flat - {"error"})} <= found


def questions_of(path: Path) -> Callable[[], Iterator[ParsedQuestion | Invalid]]:
    """The questions in a file, as often as wanted."""
    return lambda: read_questions(a_source(path), ReadingLimits())


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_order_is_that_of_the_questions(tmp_path: Path, ending: str) -> None:
    """Answers come as they finish; those that are missing yet are passed over."""
    asked = tmp_path / "questions.jsonl"
    asked.write_text("".join(json.dumps({"id": f"q{number}", "question": "Why?"}) + "\n" for number in range(50)))
    order = [(17 * number) % 50 for number in range(50)]
    journal = written(tmp_path / "answers.jsonl", *(an_answer(f"q{number}") for number in order if number != 3))
    to = destination(tmp_path / f"out.{ending}", is_ordered=True)

    assert export(journal, to, {}, questions_of(asked)) == 49

    found = [json.loads(line) for line in to.path.read_text().splitlines()] if ending == "jsonl" else rows_in(to.path)
    assert [row["id"] for row in found] == [f"q{number}" for number in range(50) if number != 3]


def test_a_file_is_put_in_order_in_its_place(tmp_path: Path) -> None:
    """For JSONL the answers file is the file that is asked for."""
    asked = tmp_path / "questions.jsonl"
    asked.write_text('{"id": "a", "question": "?"}\n{"id": "b", "question": "?"}\n')
    journal = written(tmp_path / "answers.jsonl", an_answer("b"), an_answer("a"))
    to = destination(journal, is_ordered=True)

    export(to.journal, to, {}, questions_of(asked))

    assert [json.loads(line)["id"] for line in journal.read_text().splitlines()] == ["a", "b"]
    assert {path.name for path in tmp_path.iterdir()} == {"questions.jsonl", "answers.jsonl"}


def test_order_needs_the_right_questions(tmp_path: Path) -> None:
    """An answer to something else, or a second one, is said before anything is replaced."""
    asked = tmp_path / "questions.jsonl"
    asked.write_text('{"id": "a", "question": "?"}\n{"id": "c", "question": "?"}\n')
    to = destination(tmp_path / "out.jsonl", is_ordered=True)

    mistakes = {
        "answers.jsonl:1: none of these questions has its id 'b'": [an_answer("b")],
        "answers.jsonl:2: its id 'a' is that of .*answers.jsonl:1 already; remove one of them": [
            an_answer("a"),
            an_answer("a"),
        ],
    }
    for words, records in mistakes.items():
        with pytest.raises(UsageError, match=words):
            export(written(tmp_path / "answers.jsonl", *records), to, {}, questions_of(asked))
    assert not to.path.exists()


def test_memory_does_not_grow_with_the_answers(tmp_path: Path) -> None:
    """Not even in order: 8 000 lines take what 1 000 take."""
    peaks = []
    for count in (1_000, 8_000):
        asked, journal = tmp_path / f"{count}.jsonl", tmp_path / f"{count}.answers"
        asked.write_text("".join(f'{{"id": "{number}", "question": "?"}}\n' for number in range(count)))
        line = answer_line(an_answer("ID", text="x" * 100))
        journal.write_bytes(b"".join(line.replace(b'"ID"', b'"%d"' % number) for number in reversed(range(count))))
        tracemalloc.start()
        assert export(journal, destination(tmp_path / "out.csv", is_ordered=True), {}, questions_of(asked)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] + 1024 * 1024


def test_a_batch_file_keeps_what_came_beside_the_text(tmp_path: Path) -> None:
    """Reasoning, tool calls and a refusal are in the message, cached and reasoning tokens in the usage."""
    asked = tmp_path / "questions.jsonl"
    asked.write_text('{"id": "c", "messages": [{"role": "user", "content": "Hi"}]}\n')
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    details: dict[str, Any] = {"refusal": ["no"], "stop_reasons": [None]}
    usage = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, reasoning_tokens=2)
    journal = written(
        tmp_path / "answers.jsonl",
        an_answer("c", text="", reasoning="hm", tool_calls=calls, details=details, usage=usage),
    )

    export(journal, destination(tmp_path / "out.openai.jsonl"), {}, questions_of(asked))

    body = json.loads((tmp_path / "out.openai.jsonl").read_text())["response"]["body"]
    message = {"role": "assistant", "content": None, "refusal": "no", "reasoning_content": "hm", "tool_calls": calls}
    assert body["choices"][0]["message"] == message
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_a_batch_file_has_the_form_of_openai(tmp_path: Path) -> None:
    """Chat questions get chat completions, prompts get text completions, failures an error.

    Several choices are all there.
    """
    asked = tmp_path / "questions.jsonl"
    chat = {"id": "c", "messages": [{"role": "user", "content": "Hi"}]}
    asked.write_text(
        "\n".join(json.dumps(one) for one in (chat, {"id": "p", "question": "?"}, {"id": "q2", "question": "?"}))
    )
    top = {"token": "4", "logprob": -0.5, "top_logprobs": [{"token": "5", "logprob": -1.0}]}
    several = an_answer("p", texts=["x", "y"], details={"finish_reasons": ["stop", "length"], "logprobs": [[top], []]})
    journal = written(tmp_path / "answers.jsonl", an_answer("c"), several, a_failure("q2"))

    export(journal, destination(tmp_path / "out.openai.jsonl"), {}, questions_of(asked))

    of_chat, of_prompt, failed = (json.loads(line) for line in (tmp_path / "out.openai.jsonl").read_text().splitlines())
    assert (of_chat["custom_id"], of_chat["error"], of_chat["response"]["status_code"]) == ("c", None, 200)
    body = of_chat["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "42", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    choices = of_prompt["response"]["body"]["choices"]
    assert [(one["index"], one["text"], one["finish_reason"]) for one in choices] == [
        (0, "x", "stop"),
        (1, "y", "length"),
    ]
    assert choices[0]["logprobs"] == {"tokens": ["4"], "token_logprobs": [-0.5], "top_logprobs": [{"5": -1.0}]}
    assert (failed["response"], failed["error"]) == (None, {"code": "prompt_too_long", "message": "9 tokens, 4 fit"})


def test_a_batch_file_is_read_by_the_openai_client(tmp_path: Path) -> None:
    """The bodies are what its own types accept."""
    from openai.types.chat import ChatCompletion  # noqa: PLC0415 (slow to import)

    export(written(tmp_path / "answers.jsonl", an_answer("c")), destination(tmp_path / "out.openai.jsonl"), {})

    body = json.loads((tmp_path / "out.openai.jsonl").read_text())["response"]["body"]
    assert ChatCompletion.model_validate(body, strict=True).choices[0].message.content == "42"


def test_json_has_metadata_and_results(tmp_path: Path) -> None:
    """Questions and reference answers stand beside what the model said; a failure is skipped, with its error."""
    asked = tmp_path / "questions.json"
    asked.write_text(
        json.dumps([{"id": "q1", "question": "6 x 7?", "answer": "42"}, {"id": "q2", "question": "9?", "answer": "9"}])
    )
    journal = written(
        tmp_path / "answers.jsonl", a_failure("q2"), an_answer("q1", metadata={"answer": "42"}, latency_s=1.5)
    )

    export(journal, destination(tmp_path / "out.json"), {"evaluation_metadata": {"run": "r"}}, questions_of(asked))

    found = json.loads((tmp_path / "out.json").read_text())
    assert found["metadata"] == {"evaluation_metadata": {"run": "r"}}
    first, second = found["results"]
    assert {
        name: first[name]
        for name in (
            "question_id",
            "id",
            "question",
            "reference_answer",
            "model_answer",
            "skipped",
            "model_time_seconds",
        )
    } == {
        "question_id": 0,
        "id": "q1",
        "question": "6 x 7?",
        "reference_answer": "42",
        "model_answer": "42",
        "skipped": False,
        "model_time_seconds": 1.5,
    }
    assert (second["question_id"], second["skipped"], second["error"]) == (1, True, "9 tokens, 4 fit")


def test_compressed_lines_are_the_lines(tmp_path: Path) -> None:
    """The name says how; the same answers give the same bytes."""
    journal = written(tmp_path / "answers.jsonl", an_answer("a"), a_failure())
    for name in ("a.jsonl.gz", "b.jsonl.gz", "a.jsonl.zst"):
        export(journal, destination(tmp_path / name), {})

    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == journal.read_bytes()
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert zstd_for(Path()).decompress((tmp_path / "a.jsonl.zst").read_bytes()) == journal.read_bytes()


@pytest.mark.parametrize(
    ("name", "format_", "journal"),
    [
        ("a.jsonl", "jsonl", "a.jsonl"),
        ("answers", "jsonl", "answers"),
        ("a.JSON", "json", "a.JSON.journal"),
        ("a.csv.gz", "csv", "a.csv.gz.journal"),
        ("a.jsonl.zst", "jsonl", "a.jsonl.zst.journal"),
        ("a.openai.jsonl", "openai", "a.openai.jsonl.journal"),
        ("a.feather", "arrow", "a.feather.journal"),
    ],
)
def test_the_name_says_the_format(name: str, format_: str, journal: str) -> None:
    """And where the answers are kept until then."""
    to = destination(Path("x") / name)

    assert (to.format, to.journal) == (format_, Path("x") / journal)


@pytest.mark.parametrize(("is_csv_safe", "expected"), [(False, "=1+1"), (True, "'=1+1")])
def test_a_spreadsheet_finds_no_formulas_if_asked(tmp_path: Path, *, is_csv_safe: bool, expected: str) -> None:
    """Cells are as they are by default.

    With --csv-safe, what begins as a formula does is text, and numbers stay numbers.
    """
    journal = written(tmp_path / "answers.jsonl", an_answer("-1", text="=1+1"))
    to = destination(tmp_path / "out.csv", is_csv_safe=is_csv_safe)

    export(journal, to, {})

    (row,) = rows_in(to.path)
    assert row["text"] == expected
    assert row["id"] == ("'-1" if is_csv_safe else "-1")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """Even one whose file is not there yet: it stays a link, and the file gets the answers."""
    journal = written(tmp_path / "answers.jsonl", an_answer("a"))
    (tmp_path / "there").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "there" / "real.csv")

    export(journal, destination(link), {})

    assert link.is_symlink()
    assert rows_in(tmp_path / "there" / "real.csv")[0]["id"] == "a"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """It is refused before anything is asked, with the way to write to one."""
    os.mkfifo(tmp_path / "out.csv")

    with pytest.raises(UsageError, match="it is not a regular file; choose another -o, or - for standard output"):
        ensure_writable(destination(tmp_path / "out.csv"))


def test_names_that_can_be_foreseen_follow_no_link(tmp_path: Path) -> None:
    """A link in the place of a scratch file, a journal or a sidecar leads nowhere: what it points to is left alone."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (
        "a.jsonl.run",
        "b.csv.journal",
        f".c.jsonl.questions.{os.getpid()}.tmp",
    ):
        (tmp_path / name).symlink_to(precious)

    stdin_spool.spool(io.BytesIO(b"{}"), tmp_path / "c.jsonl", 100)
    for path, follows in ((tmp_path / "a.jsonl", True), (tmp_path / "b.csv.journal", False)):
        with pytest.raises(UsageError, match="is a link; choose another -o"):
            AnswersFile(path, follows_link=follows)

    assert precious.read_text() == "mine"


def test_what_cannot_be_written_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package or folder costs no run."""
    with pytest.raises(UsageError, match=r"parquet files compress their columns themselves; leave \.gz out"):
        destination(tmp_path / "a.parquet.gz")
    with pytest.raises(UsageError, match=r"\.xlsx files are not written; spreadsheets open \.csv, too"):
        destination(tmp_path / "a.xlsx")
    with pytest.raises(UsageError, match="there is no such folder; choose another -o"):
        exporter.ensure_writable(destination(tmp_path / "no" / "a.csv"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="need the package pyarrow: scripts/install --parquet"):
        exporter.ensure_writable(destination(tmp_path / "a.parquet"))


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The file is replaced in one step or not at all, and no scrap is left."""
    journal = written(tmp_path / "answers.jsonl", an_answer("a"))
    (tmp_path / "out.csv").write_text("before")

    class Failing(Destination):
        """Its disk is full as soon as something is to be written."""

        @property
        def wants_questions(self) -> bool:
            raise OSError(28, "No space left on device")

    with pytest.raises(
        UsageError, match=r"No space left on device; the answers are safe in .*answers.jsonl: make room"
    ):
        export(journal, Failing(tmp_path / "out.csv", "csv"), {}, lambda: iter(()))

    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "out.csv"]


def test_a_line_that_is_no_answer_is_named(tmp_path: Path) -> None:
    """With its number; a last line without its end is still being written, and left out."""
    journal = written(tmp_path / "answers.jsonl", an_answer("a"))
    journal.write_bytes(journal.read_bytes() + b'{"id": "b", "sta')
    assert export(journal, destination(tmp_path / "out.csv"), {}) == 1

    journal.write_bytes(b'{"id": "b"}\n')
    with pytest.raises(UsageError, match=r"answers.jsonl:1: it is not an answer;"):
        export(journal, destination(tmp_path / "out.csv"), {})


def test_standard_input_is_kept_until_it_is_answered(tmp_path: Path) -> None:
    """The same input resumes it; another one is refused and changes nothing; too much of it is an error."""
    answers = tmp_path / "answers.jsonl"
    kept = stdin_spool.spool(io.BytesIO(b"one\n"), answers, 100)

    assert kept == stdin_spool.spool_path(answers) == stdin_spool.spool(io.BytesIO(b"one\n"), answers, 100)
    with pytest.raises(
        UsageError, match=r"differs from .*answers.jsonl.questions, the questions of an earlier attempt"
    ):
        stdin_spool.spool(io.BytesIO(b"two\n"), answers, 100)
    with pytest.raises(UsageError, match=r"longer than limits.max_stdin_bytes \(2\)"):
        stdin_spool.spool(io.BytesIO(b"one\n"), answers, 2)
    with pytest.raises(UsageError, match="there are no questions in it"):
        stdin_spool.spool(io.BytesIO(b""), answers, 2)
    assert kept.read_bytes() == b"one\n"
    assert list(tmp_path.iterdir()) == [kept]
