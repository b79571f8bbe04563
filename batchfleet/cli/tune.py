"""`tune`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.text import Text

from batchfleet.cli.flags import Commands, Shared, add_engine, add_json
from batchfleet.console import TerminalConsole
from batchfleet.settings import to_options
from batchfleet.settings.mask import to_file_text
from batchfleet.settings.schema import Settings
from batchfleet.status.table import Kind, columns_of, fit, rich_table
from batchfleet.tuning.machine import describe_machine, in_words
from batchfleet.tuning.table_report import Report
from batchfleet.tuning.tune import Tuned, TuningPlan, tune
from wire.errors import UsageError


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    parser = commands.add_parser(
        "tune",
        parents=[shared.common],
        help="find the fastest settings for an engine by measuring",
        description=(
            "Boots the engine without a fleet and measures it with several sizes, capacities and batch sizes. "
            "Needs the GPUs for itself."
        ),
    )
    add_engine(parser)
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="sample questions (default: generated word problems)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the settings there (default: stdout)")
    parser.add_argument("--budget", type=_seconds, default=600.0, metavar="S", help="total seconds (default: 600)")
    parser.add_argument(
        "--seconds", type=_seconds, default=8.0, metavar="S", help="seconds per measurement (default: 8)"
    )
    parser.add_argument("--exhaustive", action="store_true", help="then measure every combination and compare")
    add_json(parser, "print what was measured as one JSON object on stdout, in place of the settings")
    parser.set_defaults(command=_tune)


def _tune(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.output is not None and arguments.output.exists():
        msg = f"{arguments.output} exists; give another name, or remove it"
        raise UsageError(msg)
    plan = TuningPlan(
        engine=to_options.engine_kind(settings, arguments.engine),
        questions=arguments.questions,
        budget_s=arguments.budget,
        window_s=arguments.seconds,
        exhaustive=arguments.exhaustive,
    )
    tuned = tune(plan, settings, lambda words: print(words, file=sys.stderr, flush=True))
    machine = describe_machine()
    _show(tuned.report, in_words(machine))
    text = _file_text(tuned, plan.engine)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
        print(f"wrote {arguments.output}; use it with --config", file=sys.stderr)
    if arguments.json:
        print(json.dumps(tuned.report.as_dict(machine), default=str))
    elif arguments.output is None:
        print(text, end="")
    return 0


def _show(report: Report, machine: str) -> None:
    console = TerminalConsole(stderr=True)
    settings = ", ".join(f"{name} {value}" for name, value in report.parameters.items())
    console.print(Text(f"tune: {settings}\n{machine}\n"))
    for table in report.tables:
        headings = [(heading, Kind.NUMBER, 0 if heading == "of the best" else None) for heading in table.columns]
        rows = [tuple(map(str, row)) for row in table.rows]
        console.print(
            Text(f"{table.title}:"), rich_table(fit(columns_of(headings, rows), console.width_if_terminal)), Text()
        )
    console.print(*map(Text, report.notes), sep="\n")


def _file_text(tuned: Tuned, engine: str) -> str:
    head = (
        f"# Found by `batchfleet tune` for engine {engine} on {datetime.now(UTC):%Y-%m-%d}. Secrets are not in here: "
        "they stay where they were.\n"
    )
    return head + to_file_text(tuned.settings)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:  # noqa: PLR2004 (a day)
        msg = f"{text} is not above 0 and at most 86400"
        raise argparse.ArgumentTypeError(msg)
    return value
