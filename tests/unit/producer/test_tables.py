"""CSV, TSV, Parquet, Arrow, data sets on disk, compressed text.

Their rows become the same questions as lines of JSON would.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.options import ReadingLimits
from producer.questions.compression import zstd_for
from producer.questions.csv_dialect import FOUND_BY_ITSELF, CsvStyle
from producer.questions.question_file import ParsedQuestion, Source, check_questions, read_checked
from producer.questions.sources import find_files
from tests.builders import a_source
from wire.errors import UsageError

LIMITS = ReadingLimits()
ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": 'Which is "it",\nthis or that?', "answer": "that", "level": "1"},
    {"id": "b", "question": "2 + 2 = ? \u2014 \u4e16", "answer": "4", "level": ""},
]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
GSM8K = Path(__file__).parents[4] / "shared" / "data" / "gsm8k_test.jsonl"


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_array(path: Path, rows: list[dict[str, Any]]) -> None:
    """One array."""
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def as_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",", mark: str = "", end: str = "\r\n") -> None:
    """As Excel would, or others."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Two rows a group."""
    pa.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def as_feather(path: Path, rows: list[dict[str, Any]]) -> None:
    """The Arrow file format."""
    pa.feather.write_feather(pa.Table.from_pylist(rows), str(path), compression="zstd")


def as_stream(path: Path, rows: list[dict[str, Any]]) -> None:
    """The Arrow stream format."""
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def as_data_set(path: Path, rows: list[dict[str, Any]]) -> None:
    """The folder that `save_to_disk` makes, in two shards."""
    path.mkdir()
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(names, (rows[:1], rows[1:]), strict=True):
        as_stream(path / name, part or rows[:0])
    (path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_split": "test"})
    )


def as_gzip(path: Path, rows: list[dict[str, Any]]) -> None:
    """Two members in one file, as `cat a.gz b.gz` makes."""
    plain = path.with_name("plain.jsonl")
    as_jsonl(plain, rows)
    half = plain.stat().st_size // 2
    path.write_bytes(gzip.compress(plain.read_bytes()[:half]) + gzip.compress(plain.read_bytes()[half:]))


def as_zstd(path: Path, rows: list[dict[str, Any]]) -> None:
    """Two frames in one file."""
    plain = path.with_name("plain.csv")
    as_csv(plain, rows)
    half = plain.stat().st_size // 2
    path.write_bytes(
        zstd_for(Path()).compress(plain.read_bytes()[:half]) + zstd_for(Path()).compress(plain.read_bytes()[half:])
    )


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "rows.jsonl": as_jsonl,
    "rows.json": as_array,
    "rows.csv": as_csv,
    "spreadsheet.csv": lambda path, rows: as_csv(path, rows, ";", "\ufeff"),
    "rows.tsv": lambda path, rows: as_csv(path, rows, "\t"),
    "rows.parquet": as_parquet,
    "rows.feather": as_feather,
    "rows.arrow": as_stream,
    "rows": as_data_set,
    "rows.jsonl.gz": as_gzip,
    "rows.csv.zst": as_zstd,
}


def read(source: Source) -> list[Any]:
    """All questions, checked."""
    return list(read_checked(source, LIMITS, check_questions(source, LIMITS)))


def asked(source: Source) -> list[tuple[Any, ...]]:
    """What is asked, without where it stands."""
    return [
        (one.request_id, one.prompt, one.messages, one.model, one.params, one.priority, one.metadata)
        for one in read(source)
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_asks_the_same(tmp_path: Path, name: str) -> None:
    """Ids, prompts and metadata are those of the rows, line breaks and quotes included.

    So is the fingerprint that a run is named by.
    """
    as_jsonl(tmp_path / "reference", ROWS)
    WRITERS[name](tmp_path / name, ROWS)
    source = Source(find_files([str(tmp_path / name)]))

    found = asked(source)

    assert [one[:2] for one in found] == [(row["id"], row["question"]) for row in ROWS]
    assert [one[-1] for one in found] == [{"answer": row["answer"], "level": row["level"]} for row in ROWS]
    assert (
        check_questions(source, LIMITS).fingerprint
        == check_questions(a_source(tmp_path / "reference"), LIMITS).fingerprint
    )


@pytest.mark.skipif(not GSM8K.exists(), reason="there is no copy of the GSM8K problems")
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_holds_gsm8k(tmp_path: Path, name: str) -> None:
    """Real problems, with everything that people write."""
    rows = [json.loads(line) for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    WRITERS[name](tmp_path / name, rows)

    found = asked(Source(find_files([str(tmp_path / name)])))

    assert found == asked(a_source(GSM8K))
    assert len(found) == 1319


@given(
    rows=st.lists(
        st.fixed_dictionaries({"question": texts.filter(str.strip), "answer": texts, "a b": texts}),
        min_size=1,
        max_size=4,
    )
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet", "rows.arrow", "rows.csv.zst"])
def test_any_text_survives_a_table(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[dict[str, Any]]
) -> None:
    """Separators, quotes, line ends and white space of a cell are the cell's."""
    path = tmp_path_factory.mktemp("table") / name
    WRITERS[name](path, rows)

    found = read(a_source(path))

    assert [(one.prompt, one.metadata) for one in found] == [
        (row["question"], {"answer": row["answer"], "a b": row["a b"]}) for row in rows
    ]


def test_cells_may_hold_more_than_text(tmp_path: Path) -> None:
    """Parameters, messages and numbers are JSON in CSV and structures in Parquet; a null in a structure is nothing."""
    as_csv(
        tmp_path / "a.csv",
        [
            {
                "messages": '[{"role": "user", "content": "Hi"}]',
                "params": '{"top_k": 3}',
                "priority": "2",
                "id": "",
                "model": "m",
            }
        ],
    )
    message = {"role": "user", "content": "Hi", "name": None}
    other = {"role": "user", "content": "Hi", "name": "x"}
    rows = [{"messages": [message], "params": {"top_k": 3, "seed": None}, "priority": 2, "model": "m"}]
    as_parquet(
        tmp_path / "a.parquet",
        [*rows, {"messages": [other], "params": {"top_k": None, "seed": 1}, "priority": 0, "model": None}],
    )

    of_csv, of_parquet = asked(a_source(tmp_path / "a.csv"))[0], asked(a_source(tmp_path / "a.parquet"))[0]

    assert of_csv == of_parquet
    assert of_csv[2:6] == ([{"role": "user", "content": "Hi"}], "m", {"top_k": 3}, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('question\na\n"b\nc\n', r":3: this row has no end: a quote in it, or before it, is not closed"),
        ("question,x\na\n", r":2: it has 1 cells, and the header 2 columns"),
        ('question,x\n"a"b,c\n', r":2: a quote in the middle of a cell"),
        ("question\n\xff\n", r":2: it is not UTF-8"),
        ("question,question\na,b\n", r": two columns are named 'question'"),
        ("prompts,b\na,b\n", r": which column is asked\? The columns are prompts, b; name one with --question-column"),
        ("", r": there is nothing in it; a table begins with the names"),
        ("question,priority\na,high\n", r":2: `priority` is 'high', which is not JSON"),
    ],
)
def test_what_is_wrong_with_csv_is_said_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """The file, the line, and what to do."""
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(UsageError, match=expected):
        check_questions(a_source(path), LIMITS)


def cells_of(path: Path, text: str, style: CsvStyle = FOUND_BY_ITSELF) -> list[str | None]:
    """What is asked by a table with a column `question`."""
    path.write_bytes(text.encode())
    source = replace(a_source(path), csv=style)
    return [one.prompt for one in read(source)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "sep=;\r\nid;question\r\n1;a?\r\n", ["a?"]),
        ("a.csv", "\ufeffsep=\t\r\nid\tquestion\r\n1\ta, b?\r\n", ["a, b?"]),
        ("a.csv", 'id;question;"answer, gold"\n1;a?;x\n', ["a?"]),
        ("a.csv", "id;question;note, or none\n1;a?;x\n", ["a?"]),
        ("a.csv", "id|question\n1|a, b; c?\n", ["a, b; c?"]),
        ("a.csv", "question\na?\n", ["a?"]),
        ("a.tsv", 'id\tquestion\n1\t"To be" or not?\n2\t5" pipe\n3\t"yes"\n', ['"To be" or not?', '5" pipe', '"yes"']),
        ("a.tsv", 'id\tquestion\n1\t"a\tb"\n2\t"c"\n', ["a\tb", "c"]),
        ("a.tsv", 'id\tquestion\n1\t"a\nb"\n', ["a\nb"]),
        ("a.tsv", 'id\tquestion\n1\t"say ""hi"""\n', ['say "hi"']),
        ("a.tsv", '"id"\t"question"\n"1"\t"yes"\n', ["yes"]),
        ("a.tsv", 'id\tquestion\n1\t5" pipe', ['5" pipe']),
    ],
)
def test_how_a_table_is_written_is_found(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    """Excel's `sep=`, another delimiter than the comma, tabs with and without quoting."""
    assert cells_of(tmp_path / name, text) == expected


def test_quotes_in_doubt_are_asked_about(tmp_path: Path) -> None:
    """Between tabs, quotes that enclose nothing special may be text.

    Neither is taken for granted, however late they come.
    """
    early, late = 'id\tquestion\n3\t"yes"\n', "id\tquestion\n" + "1\ta?\n" * 100_000 + '3\t"yes"\n'

    for text, line in ((early, 2), (late, 100_002)):
        with pytest.raises(
            UsageError, match=rf"a\.tsv:{line}: are the quotes around this cell part of its text\? Give --quoting none"
        ):
            cells_of(tmp_path / "a.tsv", text)
    assert cells_of(tmp_path / "a.tsv", early, CsvStyle(quoting="none")) == ['"yes"']
    assert cells_of(tmp_path / "a.tsv", early, CsvStyle(quoting="csv")) == ["yes"]


def test_a_delimiter_makes_a_table_of_any_name(tmp_path: Path) -> None:
    """But of one that says JSON. Quotes are text if that is said, between commas too."""
    assert cells_of(tmp_path / "a.txt", "id:question\n1:a?\n", CsvStyle(":")) == ["a?"]
    assert cells_of(tmp_path / "a.jsonl", '{"question": "a:b?"}\n', CsvStyle(":")) == ["a:b?"]
    assert cells_of(tmp_path / "a.csv", 'id,question\n1,"a"b\n', CsvStyle(quoting="none")) == ['"a"b']


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path: Path) -> None:
    """The file is refused as soon as a row is longer than a question may be, whatever follows."""
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write('question\n"never closed\n')
        file.writelines("more and more text\n" for _ in range(100_000))
    tracemalloc.start()

    with pytest.raises(UsageError, match=r":2: .*not closed|:.*has no end within 10000 bytes"):
        check_questions(a_source(path), ReadingLimits(max_question_bytes=10_000))

    assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.feather", "rows.arrow", "rows.jsonl.gz", "rows.csv.zst"])
@pytest.mark.parametrize("kept", [0.98, 0.5])
def test_half_a_file_is_an_error(tmp_path: Path, name: str, kept: float) -> None:
    """A download that broke off is refused before anything is sent, with the name of the file."""
    rows = [{"id": str(number), "question": f"{number} {os.urandom(40).hex()}"} for number in range(2000)]
    path = tmp_path / name
    WRITERS[name](path, rows)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    with pytest.raises(UsageError, match=f"{name}: it is .*(damaged|complete)"):
        check_questions(a_source(path), LIMITS)


def test_bytes_in_a_column_are_named(tmp_path: Path) -> None:
    """Pictures cannot be JSON; leaving the column out helps."""
    path = tmp_path / "a.parquet"
    as_parquet(path, [{"question": "Why?", "picture": b"\x89PNG"}])

    with pytest.raises(
        UsageError, match=r"a\.parquet: row 1: `picture` is bytes that are not UTF-8; .*--metadata-columns"
    ):
        check_questions(a_source(path), LIMITS)


def test_parts_of_a_data_set_are_named(tmp_path: Path) -> None:
    """A folder with several splits asks for one of them; a folder with one is that one."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    as_data_set(folder / "test", ROWS)

    assert len(find_files([str(folder)])) == 2
    as_data_set(folder / "train", ROWS)
    with pytest.raises(UsageError, match=f"in parts; name the one to ask: {folder}/test, {folder}/train"):
        find_files([str(folder)])


def test_an_empty_data_set_is_named(tmp_path: Path) -> None:
    """Whether it has no file, or one without rows."""
    (tmp_path / "state.json").write_text('{"_data_files": []}')
    with pytest.raises(UsageError, match=r"state\.json: the data set has no files; there are no questions in it"):
        find_files([str(tmp_path)])

    table = pa.table({"question": pa.array([], pa.string())})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet: there are no questions in it"):
        read(a_source(tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", ""])
def test_a_data_set_has_only_files_of_its_own(tmp_path: Path, name: str) -> None:
    """What a stranger's folder names outside of itself is not read."""
    as_data_set(tmp_path / "set", ROWS)
    (tmp_path / "set" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))

    with pytest.raises(UsageError, match="which is not in this folder"):
        find_files([str(tmp_path / "set")])


def test_several_files_are_one_run(tmp_path: Path) -> None:
    """In the order of the names, a pattern's files by name; formats may differ.

    Ids that are derived differ by position.
    """
    as_csv(tmp_path / "b.csv", [{"question": "Why?"}])
    as_jsonl(tmp_path / "a.jsonl", [{"question": "Why?"}, {"question": "How?"}])

    files = find_files([f"{tmp_path}/*"])
    found = [one for one in read(Source(files)) if isinstance(one, ParsedQuestion)]

    assert [(one.file, one.line, one.prompt) for one in found] == [(0, 1, "Why?"), (0, 2, "How?"), (1, 2, "Why?")]
    assert len({one.request_id for one in found}) == 3


def test_an_id_in_two_files_is_an_error_that_names_both(tmp_path: Path) -> None:
    """Unless the later one may fail, under an id that no other has."""
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(
            '\n{"id": "x", "question": "Why?"}\n{\n' if name == "b.jsonl" else '{"id": "x", "question": "Why?"}\n\n{'
        )
    source = Source((tmp_path / "a.jsonl", tmp_path / "b.jsonl"))

    with pytest.raises(UsageError) as caught:
        check_questions(source, LIMITS)

    assert f"{tmp_path}/b.jsonl:2: its id is already that of line 1 of {tmp_path}/a.jsonl; give" in str(caught.value)
    found = list(read_checked(source, LIMITS, check_questions(source, LIMITS, skip_invalid=True)))
    assert [one.request_id for one in found] == [
        "x",
        "invalid-line-3",
        "invalid-line-2-file-2",
        "invalid-line-3-file-2",
    ]


def test_files_are_named_once_and_patterns_fit_something(tmp_path: Path) -> None:
    """Asking everything twice is no wish; a folder is a question."""
    path = tmp_path / "a.jsonl"
    as_jsonl(path, ROWS)

    with pytest.raises(UsageError, match=r"a\.jsonl: it is named twice"):
        find_files([str(path), f"{tmp_path}/*.jsonl"])
    with pytest.raises(UsageError, match="no file has such a name"):
        find_files([f"{tmp_path}/*.csv"])
    with pytest.raises(UsageError, match="it is a directory; name the files in it"):
        find_files([str(tmp_path)])


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.csv.zst", "rows.parquet", "rows.arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    """Eight thousand rows take what a thousand take."""
    peaks = []
    for count in (1_000, 8_000):
        path = tmp_path / f"{count}-{name}"
        WRITERS[name](path, [{"question": f"What is {number}? {'x' * 80}"} for number in range(count)])
        tracemalloc.start()
        assert check_questions(a_source(path), LIMITS).count == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] + 768 * 1024
