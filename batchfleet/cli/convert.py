"""Flags that say how answers are written, and `convert`, which rewrites them in another format."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from batchfleet.cli import question_flags
from batchfleet.cli.flags import Commands, Shared
from batchfleet.cli.standard_output import STDOUT, deliver
from batchfleet.humanize import count
from batchfleet.runs.deliver import about_run
from batchfleet.runs.long_step import LongStep
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from producer.answers.destination import Destination, OutputFormat, destination
from producer.answers.exporter import export
from producer.answers.reader import Answered, opened_lines
from producer.answers.sidecar import stored_about
from producer.questions.json_object import UnusableError
from producer.questions.question_file import check_questions, read_checked
from producer.questions.sources import Source
from wire.errors import UsageError

if TYPE_CHECKING:
    from producer.questions.row_filter import RowFilter

ENDINGS = ".jsonl, .json, .csv, .tsv, .parquet, .arrow, .openai.jsonl, and .gz or .zst after it"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=get_args(OutputFormat), help="format of the answers, if not by the ending")
    parser.add_argument(
        "--ordered", action="store_true", help="put the answers in the order of the questions, at the end"
    )
    parser.add_argument(
        "--samples-as",
        choices=("lines", "list"),
        default="lines",
        help="--samples as a line each, or one line per question with a list (default: lines)",
    )
    parser.add_argument(
        "--csv-safe", action="store_true", help="in CSV and TSV, put ' before what spreadsheets take for formulas"
    )


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    convert = commands.add_parser("convert", parents=[shared.common], help="convert answers to another format")
    convert.add_argument("answers", metavar="ANSWERS", help="answers of run, submit or convert, or of an OpenAI batch")
    convert.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help=f"file to write, or - for standard output; format by ending: {ENDINGS}",
    )
    add_flags(convert)
    convert.add_argument(
        "--questions", nargs="+", default=[], metavar="FILE", help="the questions, for their order and texts"
    )
    question_flags.add_flags(convert)
    convert.set_defaults(command=_convert)


def _convert(arguments: argparse.Namespace, settings: Settings) -> int:
    shown = "standard output" if arguments.output == STDOUT else arguments.output
    return deliver(arguments, lambda: _converted(arguments, settings, shown))


def _converted(arguments: argparse.Namespace, settings: Settings, shown: str) -> int:
    answers, output = Path(arguments.answers), Path(arguments.output)
    to = destination(
        output,
        arguments.format,
        is_ordered=arguments.ordered,
        is_csv_safe=arguments.csv_safe,
        is_listed=arguments.samples_as == "list",
    )
    _ensure_expendable(to, answers, arguments.questions)
    if to.is_ordered and not arguments.questions:
        raise UsageError(
            f"--{'ordered' if arguments.ordered else 'samples-as list'} needs the order: give --questions as well"
        )
    condition = question_flags.where(arguments)
    wanted = _wanted(condition) if condition else lambda _: True
    with opened_lines(answers) as lines:
        counts = Counter(answered.fields["status"] for answered in filter(wanted, lines.as_they_came()))
    about = about_run(None, counts.total(), counts["answered"], counts["failed"])
    if arguments.questions:
        source, limits = _questions(arguments), to_options.reading_limits(settings)
        with LongStep("checking the questions", "rows", "nothing was written") as step:
            checked = check_questions(source, limits, skip_invalid=True, tick=step)
        questions = lambda: read_checked(source, limits, checked)  # noqa: E731 (it begins anew with each call)
    else:
        questions = None
    with LongStep("writing the answers", "rows", "nothing was written") as step:
        export(answers, to, about, questions, step, wanted)
    print(f"{shown}: {count(counts.total())} answers, {count(counts['failed'])} of them failures", file=sys.stderr)
    return 0


def _wanted(condition: RowFilter) -> Callable[[Answered], bool]:
    def holds(answered: Answered) -> bool:
        try:
            return condition.holds(answered.fields)
        except UnusableError as error:
            raise UsageError(f"answer {answered.fields['id']!r}: {error}") from None

    return holds


def _questions(arguments: argparse.Namespace) -> Source:
    """In a chat if they were asked in one: the formats tell the two apart."""
    source = question_flags.source(arguments, arguments.questions)
    form = str(stored_about(Path(arguments.answers)).get("fingerprint", {}).get("asked as", ""))
    in_chat = re.search(r"(?:^|, )(?:chat$|system message )", form) is not None
    return replace(source, shape=replace(source.shape, chat=source.shape.chat or in_chat))


def _ensure_expendable(to: Destination, answers: Path, questions: Sequence[str]) -> None:
    """What is there may be replaced, but for what cannot be made again.

    Raises:
        UsageError: It holds the answers, the questions, or the answers of a run.
    """
    if not to.path.exists():
        return
    held = {"answers": [answers], "questions": [Path(name) for name in questions]}
    for what, paths in held.items():
        if any(path.exists() and to.path.samefile(path) for path in paths):
            raise UsageError(f"{to.path} holds the {what}; choose another -o")
    about_it = Path(f"{to.journal}.run")
    if about_it.exists() and not (answers.exists() and to.journal.exists() and answers.samefile(to.journal)):
        raise UsageError(f"{to.path} is of a run ({about_it} says which); choose another -o")
