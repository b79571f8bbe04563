"""The benchmarks as commands: `python -m benchmarks NAME`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batchfleet.cli.parser import Parser
from batchfleet.settings.load import load_settings
from batchfleet.settings.schema import Settings
from batchfleet.tuning.machine import describe_machine, in_words
from batchfleet.tuning.table_report import Report
from benchmarks import (
    batch_sizes,
    embeddings,
    engine_share,
    gateway,
    gateway_engine,
    latency,
    prefixes,
    profile,
    queue_comparison,
    scale,
    shape_table,
    throughput,
)
from benchmarks.peers.environments import PEERS
from wire.errors import FleetError, UsageError

BENCHES: dict[str, tuple[Any, str]] = {
    "throughput": (
        throughput,
        "questions/s, CPU, Redis commands and memory of the whole path, with an engine that costs nothing",
    ),
    "queue": (queue_comparison, "the whole path, beside other queues with one question per job, in one run"),
    "batching": (
        batch_sizes,
        (
            "batch sizes against each other, against the engine alone and against other ways to feed it, on the stub's "
            "step clock"
        ),
    ),
    "scale": (
        scale,
        "how many workers one Redis and one batcher keep busy, and what gives out first; workers are simulated",
    ),
    "latency": (latency, "what a fleet adds to one question, idle and under load, and where"),
    "gateway": (gateway, "OpenAI's API in front of the queue against `submit`: rate, added latency, memory"),
    "gateway-engine": (
        gateway_engine,
        "the gateway before a fleet with vLLM against vLLM's own server; needs vLLM and a --config that names a model",
    ),
    "engine": (
        engine_share,
        "a fleet with vLLM, in any shape, against vLLM by itself; needs vLLM and a --config that names a model",
    ),
    "shapes": (
        shape_table,
        "every shape of this host's GPUs, as one fleet and as raw engines, in 24 minutes; needs vLLM and a --config",
    ),
    "embeddings": (
        embeddings,
        "vectors of short texts by a fleet with vLLM against vLLM by itself; needs vLLM and a model that embeds",
    ),
    "prefixes": (
        prefixes,
        "questions that share documents, as they come and side by side; needs vLLM and a --config that names a model",
    ),
    "profile": (profile, "where the CPU time of a question goes"),
}
HELP: dict[str, str] = {
    "counts": "questions in a file",
    "batch_sizes": "sizes to compare",
    "rounds": "how often each is measured; the median counts",
    "workers": "workers",
    "folder": "for what is measured, written as it comes; must not exist",
    "gpus": "GPUs, or workers where there are none; 0 for all",
    "shape": "workers and GPUs of each, such as 4xTP2; as `configured`: one worker with its tensor_parallel_size",
    "in_flight": "questions in each raw engine; without any: as many as it works on, 1.5 times that, and all",
    "limit_s": "nothing is begun that would end later than after so many seconds; of `engine`, boots do not count",
    "killed": "workers that are killed under load after the rounds",
    "fewer": "workers, falling, with which the fleet is measured after that",
    "per_worker": "questions in a run for each worker",
    "processes": "that simulate the workers",
    "ahead": "questions asked ahead, in per cent of what all engines work on at once; 0 for all at once",
    "fed_by": "batch sizes for the other ways to feed; nothing after the flag: none",
    "loads": "per cent of what the engines can do",
    "seconds": "for each load",
    "seed": "of the generated questions",
    "source": "take the questions of this file instead, repeated as often as needed",
    "count": "questions in a run",
    "traced": "questions whose stages are looked at",
    "pause_s": "seconds between two questions; up to as much again at random",
    "step_s": "seconds that one step of the stub takes",
    "sequences": "sequences of one engine at once",
    "answer_tokens": "length of every answer",
    "documents": "in a run",
    "each": "questions to a document",
    "document_tokens": "length of a document",
    "tokens": "length of the shortest and the longest answer",
    "batch_size": "questions in a batch",
    "lognormal": "mean and deviation of the logarithm of the answers' lengths; 0 0 for an even spread",
    "prompt_chars": "length of the shortest and the longest prompt, where they are generated",
    "peers": "other queues, each in an environment of its own that is made when first needed; `none` for none",
    "peer_count": "questions for each of the other queues",
    "clients": "that ask at once",
    "idle": "requests one at a time",
    "requests": "while memory is watched",
    "open_requests": "at once, while memory is watched",
    "top": "functions to show of each program",
}
CHOICES = {"peers": (*PEERS, "none")}
PAIRS = {"tokens", "lognormal", "prompt_chars"}
FILES = {"source": "FILE", "folder": "FOLDER"}
MAY_BE_NONE = {"fed_by", "in_flight", "killed", "fewer"}
FLAGS = {"counts": "--count", "batch_sizes": "--batch", "batch_size": "--batch", "source": "--questions"}


def command_parser() -> argparse.ArgumentParser:
    """Each benchmark starts a fleet and a Redis of its own: a `--redis` would have no meaning."""
    parser: argparse.ArgumentParser = Parser(
        prog="python -m benchmarks", description="Measures this fleet on this machine."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="YAML configuration")
    names = parser.add_subparsers(required=True, metavar="NAME")
    for name, (module, words) in BENCHES.items():
        bench = names.add_parser(
            name, parents=[common], help=words, description=f"Measures {words}. Starts a fleet of its own."
        )
        for field in dataclasses.fields(module.Plan):
            _add_flag(bench, field)
        bench.add_argument("--json", action="store_true", help="one JSON object on stdout")
        bench.add_argument(
            "--save",
            type=Path,
            metavar="FOLDER",
            help="write NAME.md, NAME.json and, where there is something to draw, NAME.svg",
        )
        bench.set_defaults(bench=name)
    return parser


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Run one benchmark; progress goes to stderr, the outcome to stdout."""
    module = BENCHES[arguments.bench][0]
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(module.Plan)}
    machine = describe_machine()
    report: Report = module.run(module.Plan(**given), settings, lambda words: print(words, file=sys.stderr, flush=True))
    if arguments.save is not None:
        _save(report, machine, arguments.save)
    print(json.dumps(report.as_dict(machine), default=str) if arguments.json else report.as_text(in_words(machine)))
    return 0


def _save(report: Report, machine: dict[str, str], folder: Path) -> None:
    files = {"json": json.dumps(report.as_dict(machine), default=str), "md": report.as_text(in_words(machine))}
    if report.chart is not None:
        files["svg"] = report.chart.as_svg()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, text in files.items():
            (folder / f"{report.name}.{kind}").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        # The figures took minutes; they are still to be shown.
        print(f"cannot write to {folder}: {error.strerror}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m benchmarks NAME`."""
    arguments = command_parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        settings = load_settings(Path(arguments.config) if arguments.config else None, os.environ, {}).settings
        return run(arguments, settings)
    except FleetError as error:
        print(f"batchfleet: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 3
    except KeyboardInterrupt:
        return 130


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    default: Any = field.default
    several = isinstance(default, tuple)
    first = next(iter(default), 0) if several else default
    kind: Callable[[str], Any] = (
        Path if field.name in FILES else str if isinstance(first, str) else _positive(type(first))
    )
    parser.add_argument(
        FLAGS.get(field.name, f"--{field.name.replace('_', '-')}"),
        dest=field.name,
        type=kind,
        nargs=(2 if field.name in PAIRS else "*" if field.name in MAY_BE_NONE else "+") if several else None,
        default=default,
        choices=CHOICES.get(field.name),
        metavar=FILES[field.name] if field.name in FILES else "NAME" if isinstance(first, str) else "N",
        help=f"{HELP[field.name]} (default: {(' '.join(map(str, default)) or 'none') if several else default})",
    )


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number
