"""Any Arrow type and value: every row is asked or named, and what is asked says what the cell holds."""

from __future__ import annotations

import decimal
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from producer.options import ReadingLimits
from producer.questions.arrow_sizes import batch_sizes
from producer.questions.question_file import Invalid, ParsedQuestion, Source, check_questions, read_checked
from tests.builders import a_source
from wire.errors import UsageError

LIMITS = ReadingLimits()
FORMATS = ("stream", "file", "parquet")


def written(path: Path, table: pa.Table, form: str = "stream") -> Source:
    """A file that holds a table."""
    if form == "parquet":
        pa.parquet.write_table(table, path)
    else:
        opened = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with opened(str(path), table.schema) as writer:
            writer.write_table(table)
    return a_source(path)


def read(source: Source) -> list[ParsedQuestion | Invalid]:
    """All questions, whether they can be used or not."""
    return list(read_checked(source, LIMITS, check_questions(source, LIMITS, skip_invalid=True)))


def metadata_of(path: Path, cells: pa.Array) -> list[Any]:
    """What becomes of a column `x` beside questions: its value, or the reason why its row cannot be asked."""
    found = read(written(path, pa.table({"question": ["Why?"] * len(cells), "x": cells})))
    return [(one.metadata or {})["x"] if isinstance(one, ParsedQuestion) else one.reason for one in found]


def not_utf8(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    """A column of text that holds bytes which are none."""
    return pa.array(values, pa.binary()).view(kind)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), "2023-11-14T22:13:20.123456789"),
        (pa.array([1_700_000_000_123_456_000], pa.timestamp("ns")), "2023-11-14T22:13:20.123456"),
        (
            pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", "Europe/Berlin")),
            "2023-11-14T23:13:20.000000001+01:00",
        ),
        (pa.array([1_700_000_000], pa.timestamp("s", "Europe/Berlin")), "2023-11-14T23:13:20+01:00"),
        (pa.array([1], pa.timestamp("us", "Mars/Phobos")), "1970-01-01T00:00:00.000001+00:00"),
        (pa.array([253_402_300_800], pa.timestamp("s")), "+10000-01-01T00:00:00"),
        (pa.array([-62_135_596_801], pa.timestamp("s")), "+0000-12-31T23:59:59"),
        (pa.array([2_932_897], pa.date32()), "+10000-01-01"),
        (pa.array([19_675], pa.date32()), "2023-11-14"),
        (pa.array([1_001], pa.time64("ns")), "00:00:00.000001001"),
        (pa.array([3_600_000], pa.time32("ms")), "01:00:00"),
        (pa.array([90_061_000_000_001], pa.duration("ns")), "1 day, 1:01:01.000000001"),
        (pa.array([10**17], pa.duration("s")), "1157407407407 days, 9:46:40"),
        (pa.array([61], pa.duration("s")), "0:01:01"),
        (pa.array([b"caf\xc3\xa9"], pa.binary()), "caf\u00e9"),
        (
            pa.array([b"\xff\xfe"], pa.large_binary()),
            "`x` is bytes that are not UTF-8; write it as text, or leave that column out with --metadata-columns",
        ),
        (not_utf8([b"\xff"], pa.string()), "`x` is not UTF-8; "),
        (pa.array([float("nan")]), "`x` is nan, which JSON cannot represent; "),
        (pa.array([[1.0, float("-inf")]]), "`x` is -inf, which JSON cannot represent; "),
        (pa.array([{"a": [0.5, None]}]), {"a": [0.5, None]}),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [["k", 1]]),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array(["a", "b"]).dictionary_encode().slice(1), "b"),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000005"),
        (
            pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]),
            "`x` has two fields of one name (a, a); ",
        ),
    ],
    ids=str,
)
def test_a_cell_is_what_it_holds_or_named(tmp_path: Path, cells: pa.Array, expected: object) -> None:
    """To the nanosecond, in any year and zone; what JSON has no form for is never null."""
    (found,) = metadata_of(tmp_path / "a.arrow", cells)

    assert found == expected or (
        isinstance(expected, str) and str(found).startswith(expected) and expected.endswith("; ")
    )


def test_one_bad_cell_harms_only_its_row(tmp_path: Path) -> None:
    """Its neighbours in the same column are asked as ever."""
    found = metadata_of(tmp_path / "a.arrow", not_utf8([b"good", b"\xff", None, b"too"], pa.string()))

    assert found[0] == "good"
    assert "is not UTF-8" in found[1]
    assert found[2:] == [None, "too"]


@pytest.mark.parametrize("form", FORMATS)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, form: str) -> None:
    """Nobody can tell which of them is meant."""
    table = pa.table([["1"], ["x"], ["y"]], names=["id", "question", "question"])

    with pytest.raises(UsageError, match="two columns are named 'question'; give each a name of its own"):
        read(written(tmp_path / "a", table, form))


def test_ids_that_a_table_made_floats_are_integers(tmp_path: Path) -> None:
    """As pandas does to a column with one id missing. Half an id is none."""
    table = pa.table({"id": [1.0, 2.5, None], "question": ["a?", "b?", "c?"]})

    whole, half, missing = read(written(tmp_path / "a.parquet", table, "parquet"))

    assert whole.request_id == "1"
    assert isinstance(half, Invalid)
    assert half.reason == "`id` is a number, not a text or an integer of at most 64 bits"
    assert isinstance(missing, ParsedQuestion)


def test_long_cells_that_rows_share_do_not_fill_the_memory(tmp_path: Path) -> None:
    """A file of some kilobytes holds 256 cells of 1 MB: no more of them are unpacked at once than 64 MiB."""
    texts = pa.array(["z" * 1_000_000] * 256).dictionary_encode()
    for number, cells in enumerate((texts, texts.dictionary_decode())):
        source = written(tmp_path / str(number), pa.table({"question": cells}), "parquet")
        assert source.files[0].stat().st_size < 100_000
        most, before = 0, pa.default_memory_pool().bytes_allocated()
        for one in read_checked(source, LIMITS, check_questions(source, LIMITS)):
            most = max(most, pa.default_memory_pool().bytes_allocated() - before)
            assert isinstance(one, ParsedQuestion)

        assert most < 100 * 1024 * 1024


@pytest.mark.parametrize(("form", "part"), [("parquet", "row group"), ("file", "batch"), ("stream", "batch")])
def test_a_small_file_that_would_be_huge_is_refused(tmp_path: Path, form: str, part: str) -> None:
    """With how large it would be, before it is unpacked."""
    table, path = pa.table({"question": ["z" * 1_000_000] * 100}), tmp_path / "a"
    if form == "parquet":
        pa.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    else:
        opened = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with opened(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
    before = pa.default_memory_pool().bytes_allocated()

    with pytest.raises(
        UsageError, match=rf"a: {part} 1 is \d+ bytes, and would be 1\d{{8}} unpacked; write the file again in smaller"
    ):
        read(a_source(path))

    assert pa.default_memory_pool().bytes_allocated() - before < 1024 * 1024


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("is_file", [True, False])
def test_what_batches_take_is_told_without_unpacking_them(
    tmp_path: Path, compression: str | None, *, is_file: bool
) -> None:
    """To the byte, as pyarrow finds when it unpacks them; dictionaries are batches, too."""
    table = pa.table(
        {"question": ["z" * 100] * 500, "n": range(500), "x": pa.array(["a", "b"] * 250).dictionary_encode()}
    )
    opened = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with opened(str(tmp_path / "a"), table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=300)

    with pa.memory_map(str(tmp_path / "a")) as source:
        (_, dictionary), *batches = batch_sizes(pa, source, is_file=is_file)

    assert 0 < dictionary < 100
    for (packed, unpacked), rows in zip(batches, (300, 200), strict=True):
        exact = 100 * rows + 4 * (rows + 1) + 8 * rows + 4 * rows
        assert exact <= unpacked < exact + 200
        assert compression is None or packed < unpacked / 5


INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int64(), INT64),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.string(), st.text(max_size=5)),
    (pa.large_string(), st.text(max_size=5)),
    (pa.string_view(), st.text(max_size=5)),
    (pa.binary(), st.binary(max_size=4)),
    (pa.binary_view(), st.binary(max_size=4)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.decimal128(20, 3), st.decimals(-10_000, 10_000, places=3)),
    (pa.decimal256(50, 3), st.decimals(-10_000, 10_000, places=3)),
    (pa.date32(), INT32),
    (pa.date64(), st.integers(-(10**11), 10**11).map(lambda day: day * 86_400_000)),
    (pa.time32("s"), st.integers(0, 86_399)),
    (pa.time32("ms"), st.integers(0, 86_399_999)),
    (pa.time64("us"), st.integers(0, 86_399_999_999)),
    (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    *(
        (pa.timestamp(unit, zone), INT64)
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Asia/Kathmandu", "+05:30", "No/Where")
    ),
    *((pa.duration(unit), INT64) for unit in ("s", "ms", "us", "ns")),
    (pa.month_day_nano_interval(), st.tuples(INT32, INT32, INT64)),
    (pa.uuid(), st.binary(min_size=16, max_size=16)),
]


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Types made of others, each with what it may hold."""
    return st.one_of(
        inner.map(lambda of: (pa.list_(of[0]), st.lists(st.none() | of[1], max_size=3))),
        inner.map(lambda of: (pa.large_list(of[0]), st.lists(st.none() | of[1], max_size=3))),
        inner.map(lambda of: (pa.list_view(of[0]), st.lists(st.none() | of[1], max_size=3))),
        inner.map(lambda of: (pa.list_(of[0], 2), st.lists(st.none() | of[1], min_size=2, max_size=2))),
        inner.map(
            lambda of: (
                pa.map_(pa.string(), of[0]),
                st.lists(st.tuples(st.text(max_size=2), st.none() | of[1]), max_size=2),
            )
        ),
        st.tuples(inner, inner).map(
            lambda two: (
                pa.struct([("a", two[0][0]), ("b", two[1][0])]),
                st.fixed_dictionaries({"a": st.none() | two[0][1], "b": st.none() | two[1][1]}),
            )
        ),
    )


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    """A column of any type."""
    kind, values = draw(st.recursive(st.sampled_from(LEAVES), nested, max_leaves=3))
    rows = draw(st.lists(st.none() | values, min_size=1, max_size=4))
    try:
        cells = pa.array(rows, kind)
    except pa.ArrowNotImplementedError:  # Such as a list of extensions.
        reject()
    if pa.types.is_binary(kind) and draw(st.booleans()):
        return cells.view(pa.string())
    if not pa.types.is_nested(kind) and draw(st.booleans()):
        with suppress(pa.ArrowNotImplementedError, pa.ArrowTypeError):
            return draw(st.sampled_from([pa.Array.dictionary_encode, pa.compute.run_end_encode]))(cells)
    return cells


@given(cells=columns(), form=st.sampled_from(FORMATS))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_is_asked_or_named(tmp_path_factory: pytest.TempPathFactory, cells: pa.Array, form: str) -> None:
    """Never an exception, never a row less, never null where there was a value."""
    path = tmp_path_factory.mktemp("arrow") / "a"
    table = pa.table({"question": [f"{number}?" for number in range(len(cells))], "x": cells})
    try:
        source = written(path, table, form)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # Parquet has fewer types.
        source = written(path, table)

    found = read(source)

    assert len(found) == len(cells)
    for one, cell in zip(found, cells, strict=True):
        if isinstance(one, ParsedQuestion):
            value = cell.value if pa.types.is_run_end_encoded(cells.type) else cell
            assert ((one.metadata or {})["x"] is not None) == value.is_valid
        else:
            assert "`x` " in one.reason or "integer beyond 64 bits" in one.reason
