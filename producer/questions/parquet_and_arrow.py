"""Parquet and Arrow files -> their rows as JSON objects, some at a time. Needs pyarrow, which is an extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from producer.questions.arrow_sizes import batch_sizes
from producer.questions.arrow_values import row_bytes, rows_as_json
from producer.questions.entries import Entry, Unreadable, too_long
from wire.errors import UsageError

Kind = Literal["parquet", "arrow file", "arrow stream"]

MAGIC: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "arrow file", b"\xff\xff\xff\xff": "arrow stream"}

_ROWS_AT_ONCE = 256
_FEWEST_AT_ONCE = 16
_BYTES_AT_ONCE = 64 * 1024 * 1024
_ARROW_PER_JSON = 8
_BOMB = 100
"""What is so many times as large as it is packed is looked at more closely."""


def pyarrow_for(path: Path) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """pyarrow, with what reads and writes files.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import pyarrow.compute  # noqa: PLC0415 (an extra, and slow to import)
        import pyarrow.ipc  # noqa: PLC0415 (likewise)
        import pyarrow.parquet  # noqa: PLC0415 (likewise)
    except ImportError:
        raise UsageError(
            f"{path}: Parquet and Arrow need the package pyarrow: scripts/install --parquet adds it (pip install "
            "pyarrow elsewhere)"
        ) from None
    return pyarrow


def arrow_columns(path: Path, kind: Kind) -> tuple[str, ...]:
    """The names of the columns.

    Raises:
        UsageError: The file is damaged, two columns have one name, it is small and would be huge, or pyarrow is
            missing.
    """
    if kind != "parquet":
        pyarrow = pyarrow_for(path)
        with pyarrow.memory_map(str(path)) as source:
            for number, sizes in enumerate(batch_sizes(pyarrow, source, is_file=kind == "arrow file"), 1):
                _ensure_fits(f"{path}: batch {number}", *sizes, "batches")
    with _opened(path, kind) as (schema, _):
        names: list[str] = schema.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"{path}: two columns are named {twice!r}; give each a name of its own")
        return tuple(names)


def _ensure_fits(place: str, packed: int, unpacked: int, parts: str) -> None:
    if unpacked > max(_BYTES_AT_ONCE, _BOMB * packed):
        raise UsageError(
            f"{place} is {packed} bytes, and would be {unpacked} unpacked; write the file again in smaller {parts}, or "
            "without such long cells"
        )


def arrow_entries(path: Path, kind: Kind, columns: frozenset[str] | None, max_bytes: int) -> Iterator[Entry]:
    """The rows, numbered from 1. Memory: what pyarrow takes for one row, or for some of `_BYTES_AT_ONCE` together.

    Args:
        columns: Those that are wanted; the others are not even read. None for all.
        max_bytes: A row whose JSON is longer is given as Unreadable.

    Raises:
        UsageError: The file is damaged, or pyarrow is missing.
    """
    number = 0
    pyarrow = pyarrow_for(path)
    with _opened(path, kind) as (schema, batches):
        wanted = [name for name in schema.names if columns is None or name in columns]
        for batch in batches(wanted):
            for rows in _parts(batch):
                # An integer has eight bytes in Arrow and may have one digit, so this is longer in JSON, too.
                if rows.num_rows == 1 and (size := row_bytes(pyarrow, rows)) > _ARROW_PER_JSON * max_bytes:
                    entries: Iterator[bytes | Unreadable] = iter([too_long(size, max_bytes)])
                else:
                    entries = rows_as_json(pyarrow, rows, max_bytes)
                for entry in entries:
                    number += 1
                    yield number, entry


def _parts(batch: Any) -> Iterator[Any]:  # noqa: ANN401
    """Some rows at a time, or one where they are large."""
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        rows = batch.slice(start, _ROWS_AT_ONCE)
        if rows.nbytes <= _BYTES_AT_ONCE:
            yield rows
        else:
            yield from (rows.slice(place, 1) for place in range(rows.num_rows))


@contextmanager
def _opened(path: Path, kind: Kind) -> Iterator[tuple[Any, Callable[[list[str]], Iterator[Any]]]]:
    """The schema, and a function that gives the batches with only the columns it is told."""
    pyarrow = pyarrow_for(path)
    try:
        if kind == "parquet":
            with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
                yield file.schema_arrow, lambda names: _parquet_batches(file, path, names)
        elif kind == "arrow file":
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_file(source) as file:
                yield (
                    file.schema,
                    lambda names: (file.get_batch(i).select(names) for i in range(file.num_record_batches)),
                )
        else:
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as file:
                yield file.schema, lambda names: (batch.select(names) for batch in file)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        words = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{path}: it is damaged or incomplete ({words[0][:200]}); fetch it again") from None


def _parquet_batches(file: Any, path: Path, names: list[str]) -> Iterator[Any]:  # noqa: ANN401
    for number in range(file.num_row_groups):
        rows = _rows_at_once(file.metadata.row_group(number), f"{path}: row group {number + 1}", names)
        for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=names, use_threads=False):
            yield batch.select(names)


def _rows_at_once(group: Any, place: str, names: list[str]) -> int:  # noqa: ANN401
    """How many rows of a row group may be unpacked together, by what the file says of its columns.

    Raises:
        UsageError: It is small, and would be huge: pages are unpacked whole, however few rows are wanted.
    """
    packed = unpacked = largest_row = 0
    for number in range(group.num_columns):
        column = group.column(number)
        path = column.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in names):
            packed += column.total_compressed_size
            unpacked += column.total_uncompressed_size
            # A text that many values share is in the file once: each of a row may be as long as all of the column.
            shared = column.num_values // max(1, group.num_rows) if column.physical_type == "BYTE_ARRAY" else 1
            largest_row += column.total_uncompressed_size * max(1, shared)
    _ensure_fits(place, packed, unpacked, "row groups")
    if largest_row > _BYTES_AT_ONCE and largest_row > _BOMB * packed:
        return 1
    # Fewer than these are slow, and a file that is honestly large has rows that are much smaller than all of it.
    return max(_FEWEST_AT_ONCE, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, largest_row)))
