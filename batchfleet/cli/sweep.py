"""`sweep`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from batchfleet.cli import question_flags
from batchfleet.cli.flags import EXIT_CODES, Commands, Shared, add_engine, add_json, add_served_as, positive
from batchfleet.cli.load_settings import load
from batchfleet.runs.run_request import STDIN, RunRequest
from batchfleet.scoring.score import ScoringPlan, has_keys, score
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.sweep.comparison import Accuracy
from batchfleet.sweep.sweep import SweepPlan, run_sweep
from producer.questions.sources import Source, find_files


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    sweep = commands.add_parser(
        "sweep",
        parents=[shared.common],
        help="compare several settings on the same questions",
        description=(
            "Makes one run for each combination of `sweep:` in the configuration, with a fleet of its own on "
            "this machine."
        ),
        epilog=EXIT_CODES,
    )
    sweep.add_argument("questions", nargs="+", metavar="QUESTIONS", help=question_flags.QUESTIONS)
    sweep.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder for answers, one file per run, and the comparison"
    )
    sweep.add_argument("--skip-invalid", action="store_true", help="turn lines that cannot be used into failures")
    add_served_as(sweep)
    add_engine(sweep)
    sweep.add_argument("--workers", type=positive, default=1, metavar="N", help="worker processes (default: 1)")
    add_json(sweep, "print the comparison as one JSON object on stdout")
    sweep.add_argument("--quiet", action="store_true", help="no progress on stderr")
    question_flags.add_flags(sweep)
    sweep.set_defaults(command=_sweep, finds_fleet=False)


def _sweep(arguments: argparse.Namespace, settings: Settings) -> int:
    asking = RunRequest(
        questions=tuple(arguments.questions),
        answers=Path(arguments.output),
        skip_invalid=arguments.skip_invalid,
        quiet=arguments.quiet,
        as_json=arguments.json,
        shape=question_flags.shape(arguments),
        served_as=arguments.served_as,
        selection=question_flags.selection(arguments),
        input_format=arguments.input_format,
    )

    def with_overrides(overrides: Mapping[str, object], where: str) -> Settings:
        return load(arguments, overrides, where).settings

    return run_sweep(
        SweepPlan(asking, arguments.engine, arguments.workers, _accuracy(asking, settings)), settings, with_overrides
    )


def _accuracy(asking: RunRequest, settings: Settings) -> Accuracy:
    """Scores a run, if its questions come with known answers and can be read again."""
    if STDIN in asking.questions:
        return lambda _: None
    source, limits = (
        Source(find_files(asking.questions), asking.shape, asking.input_format, asking.selection, asking.csv_style),
        to_options.reading_limits(settings),
    )
    if not has_keys(source, limits):
        return lambda _: None
    return lambda answers: score(ScoringPlan((answers,), source, limits)).tallies[0].accuracy
