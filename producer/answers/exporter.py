"""Makes the requested file from the answers file, in one step."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import orjson

from producer.answers.columns import ColumnType, TableLayout, row_of
from producer.answers.destination import Destination, OutputFormat
from producer.answers.openai_batch import batch_line
from producer.answers.reader import Answered, Questions, opened_lines
from producer.answers.results_json import result_of
from producer.answers.sample_lists import lists_of_samples
from producer.atomic_file import replacing
from producer.questions.compression import written
from producer.questions.parquet_and_arrow import pyarrow_for
from producer.questions.question_file import Tick, ticked
from wire.errors import UsageError
from wire.messages import JsonObject

_ROWS_AT_ONCE = 1000
_CELLS_AT_ONCE = 100
"""Rows of a table as text."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may carry out, if a cell begins with it."""

T = TypeVar("T")


def export(
    answers: Path,
    to: Destination,
    about: JsonObject,
    questions: Questions | None = None,
    tick: Tick = lambda _: None,
    wanted: Callable[[Answered], bool] = lambda _: True,
) -> int:
    """Make the file. Whatever stands at its place is replaced in one step, once all is written.

    Args:
        answers: A file in any of the formats; may be the destination itself, which is then put in order.
        about: What the JSON format says in its `metadata`.
        questions: Gives order and texts, where the destination wants them.
        tick: Called with the number of lines so far, now and then.
        wanted: Which of the lines are written.

    Returns:
        The number of lines.

    Raises:
        UsageError: The answers cannot be read, the file cannot be written, or a package for its format is missing.
    """
    ensure_writable(to)
    layout = TableLayout()
    while True:
        try:
            with opened_lines(answers) as lines, replacing(to.path.resolve()) as raw, written(to.path, raw) as file:
                if questions is not None and to.wants_questions:
                    with lines.in_order(questions) as ordered:
                        return _write(filter(wanted, ticked(ordered, tick)), file, to, about, answers, layout)
                return _write(filter(wanted, ticked(lines.as_they_came(), tick)), file, to, about, answers, layout)
        except _OtherLayoutError as found:
            layout = found.layout
        except OSError as error:
            raise UsageError(
                f"cannot write {to.path}: {error.strerror or error}; the answers are safe in {answers}: make room, and "
                "run the same command again"
            ) from None


def ensure_writable(to: Destination) -> None:
    """Check before the run whether the format's packages are installed.

    Raises:
        UsageError: A package is missing, or the folder.
    """
    if to.format in ("parquet", "arrow"):
        pyarrow_for(to.path)
    with written(to.path, io.BytesIO()):
        pass
    # Through a link, even one whose file is not there yet.
    path = to.path.resolve()
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"cannot write {to.path}: {'it is a folder' if path.is_dir() else 'there is no such folder'}; choose "
            "another -o"
        )
    if path.exists() and not path.is_file():
        raise UsageError(
            f"cannot write {to.path}: it is not a regular file; choose another -o, or - for standard output"
        )


def _write(
    lines: Iterator[Answered], file: BinaryIO, to: Destination, about: JsonObject, answers: Path, layout: TableLayout
) -> int:
    created = int(answers.stat().st_mtime)
    writers: dict[OutputFormat, Callable[[], int]] = {
        "jsonl": lambda: _write_lines(lists_of_samples(lines) if to.is_listed else (line.line for line in lines), file),
        "openai": lambda: _write_lines(
            (orjson.dumps(batch_line(line, created), option=orjson.OPT_APPEND_NEWLINE) for line in lines), file
        ),
        "json": lambda: _write_json(lines, file, about),
        "csv": lambda: _write_csv(_tables(lines, layout, _CELLS_AT_ONCE), file, ",", is_safe=to.is_csv_safe),
        "tsv": lambda: _write_csv(_tables(lines, layout, _CELLS_AT_ONCE), file, "\t", is_safe=to.is_csv_safe),
        "parquet": lambda: _write_arrow(_tables(lines, layout), file, to),
        "arrow": lambda: _write_arrow(_tables(lines, layout), file, to),
    }
    return writers[to.format]()


def _write_lines(lines: Iterator[bytes], file: BinaryIO) -> int:
    count = 0
    for chunk in _chunks(lines):
        file.write(b"".join(chunk))
        count += len(chunk)
    return count


def _write_json(lines: Iterator[Answered], file: BinaryIO, about: JsonObject) -> int:
    file.write(b'{"metadata": ' + orjson.dumps(about) + b',\n"results": [')
    count = 0
    for line in lines:
        file.write((b",\n" if count else b"\n") + orjson.dumps(result_of(line)))
        count += 1
    file.write(b"\n]}\n")
    return count


class _OtherLayoutError(Exception):
    """What was written so far lacks a column, or has vectors of another size than what follows."""

    def __init__(self, layout: TableLayout) -> None:
        super().__init__()
        self.layout = layout


_Tables = Iterator[tuple[TableLayout, list[dict[str, Any]]]]


def _tables(lines: Iterator[Answered], layout: TableLayout, at_once: int = _ROWS_AT_ONCE) -> _Tables:
    """Rows, and the layout of all of them: the one given with what the first rows need, at least once.

    Raises:
        _OtherLayoutError: Later rows need more.
    """
    count = 0
    for chunk in _chunks(lines, at_once):
        rows = [row_of(line.fields) for line in chunk]
        wanted = layout.with_rows(rows)
        if count and wanted is not layout:
            raise _OtherLayoutError(wanted)
        layout = wanted
        count += len(rows)
        yield layout, rows
    if not count:
        yield layout, []


def _write_csv(tables: _Tables, file: BinaryIO, delimiter: str, *, is_safe: bool) -> int:
    count = 0
    writer: csv.DictWriter[str] | None = None
    with _text(file) as text:
        for layout, rows in tables:
            if writer is None:
                writer = csv.DictWriter(text, layout.columns, delimiter=delimiter, extrasaction="ignore")
                writer.writeheader()
            for row in rows:
                writer.writerow({name: _in_csv(value, is_safe=is_safe) for name, value in row.items()})
            count += len(rows)
    return count


def _chunks(items: Iterator[T], at_once: int = _ROWS_AT_ONCE) -> Iterator[list[T]]:
    while chunk := list(itertools.islice(items, at_once)):
        yield chunk


def _in_csv(value: object, *, is_safe: bool) -> object:
    if is_safe and isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, list):
        return orjson.dumps(value).decode()
    return str(value).lower() if isinstance(value, bool) else value


@contextmanager
def _text(file: BinaryIO) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    try:
        yield text
    finally:
        # The file below stays open: whoever opened it closes it.
        text.detach()


def _write_arrow(tables: _Tables, file: BinaryIO, to: Destination) -> int:
    pyarrow = pyarrow_for(to.path)
    count = 0
    with ExitStack() as stack:
        writer = schema = None
        for layout, rows in tables:
            if writer is None:
                schema = pyarrow.schema(
                    [
                        (name, _arrow_type(pyarrow, kind, layout.sizes.get(name)))
                        for name, kind in layout.columns.items()
                    ]
                )
                writer = stack.enter_context(
                    pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")
                    if to.format == "parquet"
                    else pyarrow.ipc.new_file(file, schema)
                )
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def _arrow_type(pyarrow: Any, kind: ColumnType, size: int | None) -> Any:  # noqa: ANN401 (pyarrow has no types)
    if kind == "vector":
        return pyarrow.list_(pyarrow.float32(), -1 if size is None else size)
    types = {"integer": pyarrow.int64(), "number": pyarrow.float64(), "boolean": pyarrow.bool_()}
    return types.get(kind, pyarrow.string())
