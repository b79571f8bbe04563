"""`score`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from batchfleet.cli import question_flags
from batchfleet.cli.flags import EXIT_CODES, Commands, Shared, add_json
from batchfleet.scoring.score import NO_GROUP, Score, ScoredQuestion, ScoringPlan, score
from batchfleet.scoring.score_report import as_dict, as_text
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from producer.questions.sources import find_files
from wire.errors import UsageError


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    command = commands.add_parser(
        "score",
        parents=[shared.common],
        help="compare answers with the known answers",
        description=(
            "Reads the letter or number that each answer gives, by the rules of docs/scoring.md, and compares "
            "it with the known one."
        ),
        epilog=EXIT_CODES,
    )
    command.add_argument(
        "answers", nargs="+", metavar="ANSWERS", help="answers in any format; several files are compared"
    )
    command.add_argument(
        "--questions",
        "--key",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the questions with their `answer`, in any format that `run` reads",
    )
    command.add_argument("--by", metavar="FIELD", help="a line per value of this field, such as metadata.subject")
    command.add_argument(
        "--tolerance",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="how far numbers may differ, as a fraction of the known one (default: 0)",
    )
    command.add_argument(
        "--details", metavar="FILE", help="write a JSON line per question: what was read, by which rule"
    )
    command.add_argument(
        "--disagreements", metavar="FILE", help="the same for questions that only some answers files have right"
    )
    add_json(command)
    question_flags.add_flags(command)
    command.set_defaults(command=_score)


def _score(arguments: argparse.Namespace, settings: Settings) -> int:
    files = tuple(Path(name) for name in arguments.answers)
    if arguments.disagreements and len(files) == 1:
        raise UsageError("--disagreements compares files of answers; name two or more")
    key = find_files(arguments.questions)
    outputs = [Path(name) for name in (arguments.details, arguments.disagreements) if name]
    _ensure_apart(outputs, [*files, *key])
    plan = ScoringPlan(
        files,
        question_flags.source(arguments, arguments.questions),
        to_options.reading_limits(settings),
        arguments.tolerance,
        arguments.by,
    )
    with ExitStack() as closing:
        details = closing.enter_context(_lines_to(arguments.details, files))
        disputed = closing.enter_context(_lines_to(arguments.disagreements, files))

        def see(line: ScoredQuestion) -> None:
            details(line)
            if line.is_disputed:
                disputed(line)

        result = score(plan, see)
    if arguments.by and all(set(groups) <= {NO_GROUP} for groups in result.groups):
        print(
            f"batchfleet: warning: --by {arguments.by}: no question has such a field in its metadata", file=sys.stderr
        )
    print(json.dumps(as_dict(result, files, arguments.by)) if arguments.json else as_text(result, files, arguments.by))
    return _exit_code(result)


def _exit_code(result: Score) -> int:
    """As for the run that gave the answers: whether they are right is a finding, not a failure."""
    if any(tally.outcomes["unanswered"] for tally in result.tallies) or any(one.missing for one in result.samples):
        return 3
    return (
        1
        if any(tally.outcomes["failed"] for tally in result.tallies) or any(one.failed for one in result.samples)
        else 0
    )


def _ensure_apart(outputs: list[Path], inputs: list[Path]) -> None:
    for number, output in enumerate(outputs):
        others = [*inputs, *outputs[:number]]
        if any(
            output.absolute() == other.absolute() or (output.exists() and other.exists() and output.samefile(other))
            for other in others
        ):
            raise UsageError(f"{output} is read or written already; choose another name")


@contextmanager
def _lines_to(name: str | None, files: tuple[Path, ...]) -> Iterator[Callable[[ScoredQuestion], None]]:
    if name is None:
        yield lambda _: None
        return
    try:
        with Path(name).open("wb") as file:
            yield lambda line: _write(line, file, files)
    except OSError as error:
        raise UsageError(f"cannot write {name}: {error.strerror}") from None


def _write(line: ScoredQuestion, file: BinaryIO, files: tuple[Path, ...]) -> None:
    file.write(orjson.dumps(line.as_dict(files), option=orjson.OPT_APPEND_NEWLINE))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up to 1")
    return value
