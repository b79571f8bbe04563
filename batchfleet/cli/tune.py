"""`tune`."""

from __future__ import annotations

import argparse
import json
import shlex
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
from batchfleet.tuning.engines import TuningPlan
from batchfleet.tuning.machine import describe_machine, in_words
from batchfleet.tuning.shapes import this_host
from batchfleet.tuning.table_report import Report
from batchfleet.tuning.tune import Tuned, tune
from wire.errors import UsageError


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    parser = commands.add_parser(
        "tune",
        parents=[shared.common],
        help="find the fastest shape and settings for an engine by measuring",
        description=(
            "Boots engines without a fleet and measures them in every shape that fits (how many workers, of how many "
            "GPUs each), then with several sizes, other arguments of vLLM, capacities and batch sizes. What vllm_args "
            "sets is kept, except for max_num_seqs and tensor_parallel_size. Needs the GPUs for itself."
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
        raise UsageError(f"{arguments.output} exists; give another name, or remove it")
    plan = TuningPlan(
        engine=to_options.engine_kind(settings, arguments.engine),
        questions=arguments.questions,
        budget_s=arguments.budget,
        window_s=arguments.seconds,
        exhaustive=arguments.exhaustive,
    )
    host = this_host(plan.engine)
    tuned = tune(plan, settings, host, lambda words: print(words, file=sys.stderr, flush=True))
    machine = describe_machine()
    _show(tuned.report, in_words(machine))
    text = file_text(tuned, plan.engine, arguments.output or Path("FILE"))
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
        print(f"wrote {arguments.output}; {_command(tuned, plan.engine, arguments.output)}", file=sys.stderr)
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


def file_text(tuned: Tuned, engine: str, file: Path) -> str:
    """A configuration to be kept as `file`, with the command that runs it on its second line."""
    head = (
        f"# Found by `batchfleet tune` for engine {engine} on {datetime.now(UTC):%Y-%m-%d}. Secrets are not in here: "
        f"they stay where they were.\n# {_command(tuned, engine, file)}\n"
    )
    return head + to_file_text(tuned.settings)


def _command(tuned: Tuned, engine: str, file: Path) -> str:
    name = " --engine stub" if engine == "stub" else ""
    return f"run it with: batchfleet up --config {shlex.quote(str(file))}{name} --workers {tuned.workers}"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:  # noqa: PLR2004 (a day)
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 86400")
    return value
