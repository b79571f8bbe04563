"""Flags that say how files of questions are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from batchfleet.cli.flags import positive
from producer.questions.column_mapping import Shape, columns_from_flags
from producer.questions.csv_dialect import CsvStyle, Quoting
from producer.questions.selection import Selection
from producer.questions.sources import InputFormat, Source, find_files
from wire.errors import UsageError

if TYPE_CHECKING:
    from producer.questions.row_filter import RowFilter
    from producer.questions.templates import PromptTemplate

QUESTIONS = (
    "files of questions: JSONL, JSON array, OpenAI batch, CSV, TSV, Parquet, Arrow, data set folder; .gz and .zst; "
    "patterns such as 'a*.csv'"
)

_COLUMNS = {
    "question": "the text to ask",
    "messages": "chat messages in OpenAI's form",
    "id": "the question's id",
    "answer": "the known answer, `answer` in the metadata",
    "model": "the model to ask",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading questions", "Other columns become metadata. See docs/formats.md.")
    for name, holds in _COLUMNS.items():
        group.add_argument(f"--{name}-column", metavar="NAME", help=f"column that holds {holds}")
    group.add_argument(
        "--metadata-columns", metavar="A,B", type=_names, help="only these columns become metadata ('' for none)"
    )
    group.add_argument(
        "--template", metavar="TEXT|FILE", help="Jinja template for prompts, such as 'Q: {{ question }}'"
    )
    group.add_argument(
        "--system", metavar="TEXT", help="system message for every question, which becomes a chat message"
    )
    group.add_argument("--chat", action="store_true", help="ask text as a chat message, without a system message")
    group.add_argument(
        "--delimiter",
        metavar="CHAR",
        type=_delimiter,
        help="separator of CSV cells, or `tab` (, ; | and tab are recognized)",
    )
    group.add_argument(
        "--quoting", choices=get_args(Quoting), default="auto", help="none: quotes in CSV files are text"
    )
    group.add_argument(
        "--input-format", choices=get_args(InputFormat), default="auto", help="format of files whose name does not say"
    )
    group.add_argument(
        "--where",
        metavar="CONDITION",
        help="only rows (or, with `convert`, answers) for which it holds, such as 'status == \"answered\"' (Jinja)",
    )
    some = group.add_mutually_exclusive_group()
    some.add_argument("--limit", type=positive, metavar="N", help="only the first N questions")
    some.add_argument("--sample", type=positive, metavar="N", help="only N random questions, the same ones each time")
    group.add_argument("--seed", type=int, metavar="S", help="seed of --sample (default: 0)")


def source(arguments: argparse.Namespace, names: Iterable[str]) -> Source:
    """The files of these names, read as the flags say.

    Raises:
        UsageError: There are no such files, or the flags contradict each other.
    """
    files = find_files(names)
    return Source(files, shape(arguments), arguments.input_format, selection(arguments), csv_style(arguments))


def selection(arguments: argparse.Namespace) -> Selection:
    """Which of the questions the flags choose.

    Raises:
        UsageError: There is a seed and no sample.
    """
    if arguments.seed is not None and arguments.sample is None:
        raise UsageError("--seed draws a --sample N; the seed of the engine's own sampling is --set seed=S")
    return Selection(arguments.limit, arguments.sample, arguments.seed or 0)


def shape(arguments: argparse.Namespace) -> Shape:
    """What the flags say.

    Raises:
        UsageError: The template is none.
    """
    return Shape(
        columns=columns_from_flags((name, getattr(arguments, f"{name}_column")) for name in _COLUMNS),
        metadata_columns=arguments.metadata_columns,
        template=_template(arguments.template),
        system=arguments.system,
        chat=arguments.chat,
    )


def where(arguments: argparse.Namespace) -> RowFilter | None:
    """The condition that rows are to fulfil.

    Raises:
        UsageError: It is none.
    """
    if arguments.where is None:
        return None
    # Only here: importing Jinja takes a tenth of a second.
    from producer.questions.row_filter import RowFilter  # noqa: PLC0415

    return RowFilter(arguments.where)


def csv_style(arguments: argparse.Namespace) -> CsvStyle:
    """What the flags say of tables as text."""
    return CsvStyle(arguments.delimiter, arguments.quoting)


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, nor `tab`")
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _template(text: str | None) -> PromptTemplate | None:
    if text is None:
        return None
    # Only here: importing Jinja takes a tenth of a second.
    from producer.questions.templates import PromptTemplate  # noqa: PLC0415

    return PromptTemplate.of(text)
