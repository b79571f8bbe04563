"""Parquet and Arrow files -> their rows as JSON objects, some at a time. Needs pyarrow, which is an extra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import orjson

from producer.questions.entries import Entry, Unreadable, too_long
from wire.errors import UsageError

Kind = Literal["parquet", "arrow file", "arrow stream"]

MAGIC: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "arrow file", b"\xff\xff\xff\xff": "arrow stream"}

_ROWS_AT_ONCE = 256


def pyarrow_for(path: Path) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """pyarrow, with what reads and writes files.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import pyarrow.ipc  # noqa: PLC0415 (an extra, and slow to import)
        import pyarrow.parquet  # noqa: PLC0415 (likewise)
    except ImportError:
        msg = f"{path}: for Parquet and Arrow, the package pyarrow is needed: {sys.executable} -m pip install pyarrow"
        raise UsageError(msg) from None
    return pyarrow


def arrow_columns(path: Path, kind: Kind) -> tuple[str, ...]:
    """The names of the columns.

    Raises:
        UsageError: The file is damaged, or pyarrow is missing.
    """
    with _opened(path, kind) as (schema, _):
        return tuple(schema.names)


def arrow_entries(path: Path, kind: Kind, columns: frozenset[str] | None, max_bytes: int) -> Iterator[Entry]:
    """The rows, numbered from 1.

    Args:
        columns: Those that are wanted; the others are not even read. None for all.
        max_bytes: A row whose JSON is longer is given as Unreadable.

    Raises:
        UsageError: The file is damaged, or pyarrow is missing.
    """
    number = 0
    with _opened(path, kind) as (schema, batches):
        wanted = [name for name in schema.names if columns is None or name in columns]
        for batch in batches(wanted):
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                    number += 1
                    yield number, _as_json(row, max_bytes)


@contextmanager
def _opened(path: Path, kind: Kind) -> Iterator[tuple[Any, Callable[[list[str]], Iterator[Any]]]]:
    """The schema, and a function that gives the batches with only the columns it is told."""
    pyarrow = pyarrow_for(path)
    try:
        if kind == "parquet":
            with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
                yield (
                    file.schema_arrow,
                    lambda names: file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names, use_threads=False),
                )
        elif kind == "arrow file":
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_file(source) as file:
                yield (
                    file.schema,
                    lambda names: (file.get_batch(i).select(names) for i in range(file.num_record_batches)),
                )
        else:
            with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as file:
                yield file.schema, lambda names: (batch.select(names) for batch in file)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        msg = f"{path}: it is damaged or not complete ({str(error).splitlines()[0][:200]}); get it again"
        raise UsageError(msg) from None


def _as_json(row: dict[str, Any], max_bytes: int) -> bytes | Unreadable:
    try:
        data = orjson.dumps(row, default=_plain)
    except (TypeError, ValueError) as error:
        return Unreadable(
            f"a value in it cannot be written as JSON ({error}); leave that column out with --metadata-columns"
        )
    return data if len(data) <= max_bytes else too_long(len(data), max_bytes)


def _plain(value: object) -> object:
    """What JSON has no form for: decimals and durations become text."""
    if isinstance(value, bytes):
        msg = "bytes"
        raise TypeError(msg)
    return str(value)
