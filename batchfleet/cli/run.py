"""`run` and `submit`."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path

from batchfleet.admin.forget import forget_if_there
from batchfleet.admin.take_back import take_back
from batchfleet.cli import convert, question_flags
from batchfleet.cli.flags import (
    EXIT_CODES,
    Commands,
    Shared,
    add_engine,
    add_json,
    add_served_as,
    add_server,
    add_settings,
    positive,
    priority,
)
from batchfleet.cli.kept_command import kept_command
from batchfleet.cli.standard_output import STDOUT, deliver, instead
from batchfleet.runs import run_file
from batchfleet.runs.resume_hint import command_again
from batchfleet.runs.run_request import RunRequest
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from producer.remote.location import is_remote
from producer.remote.upload import local_place
from wire.errors import UsageError
from wire.failures import KINDS


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    run = commands.add_parser(
        "run", parents=shared.both, help="answer a file with a fleet of its own on this machine", epilog=EXIT_CODES
    )
    _add_asking(run)
    add_engine(run)
    add_server(run)
    run.add_argument("--workers", type=positive, default=1, metavar="N", help="worker processes (default: 1)")
    run.set_defaults(command=_run, finds_fleet=False)

    submit = commands.add_parser(
        "submit", parents=shared.both, help="answer a file with a fleet that is already up", epilog=EXIT_CODES
    )
    _add_asking(submit)
    submit.add_argument(
        "--no-wait", action="store_true", help="end with exit code 3 instead of waiting when the fleet is full"
    )
    submit.set_defaults(command=_submit)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", nargs="*", metavar="QUESTIONS", help=question_flags.QUESTIONS)
    parser.add_argument(
        "-o",
        "--output",
        metavar="ANSWERS",
        help=f"file of answers, or - for standard output; format by ending: {convert.ENDINGS}",
    )
    convert.add_flags(parser)
    parser.add_argument(
        "--run", metavar="ID", help="name of the run (default: derived from what is asked, so the same command resumes)"
    )
    parser.add_argument(
        "--priority",
        type=priority,
        default=0,
        metavar="0-9",
        help="of questions that have none; higher goes first (default: 0)",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=0,
        metavar="K",
        help="ask each question K times, with K seeds; a larger K later adds samples",
    )
    parser.add_argument("--share-identical", action="store_true", help="ask identical questions at temperature 0 once")
    parser.add_argument("--cache", metavar="FOLDER", help="the same between runs: keep answers in this folder")
    add_settings(parser)
    add_served_as(parser)
    parser.add_argument("--skip-invalid", action="store_true", help="turn lines that cannot be used into failures")
    parser.add_argument(
        "--keep-going", action="store_true", help=f"continue even if the first {run_file.ALIKE} all fail alike"
    )
    _add_coming_back(parser)
    _add_ceilings(parser)
    question_flags.add_flags(parser)
    add_json(parser, "print the summary as one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress or summary on stderr")


def _add_coming_back(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("resuming and changing", "See docs/runs.md.")
    group.add_argument(
        "--update",
        action="store_true",
        help="ask only what has changed since (questions, model, parameters); keep the other answers",
    )
    group.add_argument(
        "--keep-removed", action="store_true", help="with --update, keep answers to removed questions, marked as such"
    )
    group.add_argument(
        "--retry", action="store_true", help="ask retryable failures again; their lines stay until replaced"
    )
    group.add_argument(
        "--kind",
        metavar="A,B",
        type=_kinds,
        help="with --retry, these kinds of failures instead, or `all` (docs/records.md lists them)",
    )


def _add_ceilings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("before a run", "See docs/runs.md.")
    group.add_argument(
        "--dry-run", action="store_true", help="only report what would be asked, its tokens and time; start nothing"
    )
    group.add_argument(
        "--max-tokens-total",
        type=positive,
        default=0,
        metavar="N",
        help="end with exit code 3 before all answers use more tokens, read and written",
    )
    group.add_argument(
        "--max-seconds", type=positive, default=0, metavar="S", help="end with exit code 3 after S seconds of asking"
    )


def _kinds(text: str) -> frozenset[str]:
    kinds = frozenset(KINDS) if text == "all" else frozenset(name.strip() for name in text.split(",") if name.strip())
    if unknown := sorted(kinds.difference(KINDS)):
        near = difflib.get_close_matches(unknown[0], KINDS, 1)
        raise argparse.ArgumentTypeError(
            f"there is no kind of failure {unknown[0]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return kinds


def _retried(arguments: argparse.Namespace) -> frozenset[str] | None:
    if arguments.kind is not None and not arguments.retry:
        raise UsageError("--kind says what --retry asks again; give --retry as well")
    if arguments.retry and arguments.update:
        raise UsageError("--retry and --update cannot be combined: update first, then retry")
    if arguments.keep_removed and not arguments.update:
        raise UsageError("--keep-removed says what --update does; give --update as well")
    return (arguments.kind or frozenset()) if arguments.retry else None


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    engine = to_options.engine_kind(settings, arguments.engine)
    is_piped = arguments.output == STDOUT
    return deliver(
        arguments,
        lambda: run_file.run_file(_asking(arguments, settings, is_piped), settings, engine, arguments.workers),
    )


def _submit(arguments: argparse.Namespace, settings: Settings) -> int:
    is_piped = arguments.output == STDOUT
    return deliver(arguments, lambda: run_file.submit_file(_asking(arguments, settings, is_piped), settings))


def _asking(arguments: argparse.Namespace, settings: Settings, is_piped: bool) -> RunRequest:  # noqa: FBT001 (a value)
    argv = instead(sys.argv, arguments.output, arguments.run) if is_piped else sys.argv
    return RunRequest(
        questions=tuple(arguments.questions) or _configured_questions(settings),
        answers=_answers(arguments.output, settings),
        upload_to=arguments.output if is_remote(arguments.output or "") else None,
        run=arguments.run,
        skip_invalid=arguments.skip_invalid,
        keep_going=arguments.keep_going,
        take_back=take_back,
        forget=forget_if_there,
        retry=_retried(arguments),
        updates=arguments.update,
        max_tokens_total=arguments.max_tokens_total,
        max_seconds=arguments.max_seconds,
        is_dry=arguments.dry_run,
        keeps_removed=arguments.keep_removed,
        command=kept_command(argv[1:], arguments),
        wait_for_room=not getattr(arguments, "no_wait", False),
        quiet=arguments.quiet,
        as_json=arguments.json,
        again=command_again(argv),
        is_piped=is_piped,
        priority=arguments.priority,
        samples=arguments.samples,
        shares_identical=arguments.share_identical or arguments.cache is not None,
        cache=Path(arguments.cache) if arguments.cache else None,
        shape=question_flags.shape(arguments),
        served_as=arguments.served_as,
        selection=question_flags.selection(arguments),
        where=question_flags.where(arguments),
        input_format=arguments.input_format,
        csv_style=question_flags.csv_style(arguments),
        output_format=arguments.format,
        is_ordered=arguments.ordered,
        is_csv_safe=arguments.csv_safe,
        is_listed=arguments.samples_as == "list",
    )


def _answers(output: str | None, settings: Settings) -> Path:
    if output is None:
        return _configured_answers(settings)
    return local_place(output) if is_remote(output) else Path(output)


def _configured_questions(settings: Settings) -> tuple[str, ...]:
    if settings.input.questions_file is None:
        raise UsageError("what should be asked? Name a file of questions, or set questions_file in the configuration")
    return (settings.input.questions_file,)


def _configured_answers(settings: Settings) -> Path:
    """Always the same name for the same settings, so that the same command resumes it."""
    output = settings.output
    if output.output_directory is None and output.output_prefix is None:
        raise UsageError("where should the answers go? Give -o FILE, or set output_directory in the configuration")
    folder = Path(output.output_directory or ".")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"output.output_directory: {folder} cannot be made: {error.strerror}; choose another"
        ) from None
    words = [output.output_prefix or "answers", *([settings.model_name] if settings.model_name else [])]
    return folder / (re.sub(r"[^A-Za-z0-9._-]+", "_", "_".join(words)) + ".json")
