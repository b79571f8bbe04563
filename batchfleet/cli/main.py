"""The `batchfleet` command: its command line. What a command imports is imported once it is known to be meant."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

from batchfleet.cli.flags import EXIT_CODES, shared_flags
from batchfleet.cli.parser import Parser
from batchfleet.terminal import guarded_streams

COMMANDS: dict[str, dict[str, str]] = {
    "run": {
        "run": "answer a file with a fleet of its own on this machine",
        "submit": "answer a file with a fleet that is already up",
    },
    "retry": {"retry": "ask failed questions again"},
    "convert": {"convert": "convert answers to another format"},
    "score": {"score": "compare answers with the known answers"},
    "sweep": {"sweep": "compare several settings on the same questions"},
    "up": {
        "up": "start a long-running fleet on this host: Redis (unless one is named), batchers and workers",
        "scale": "change the number of workers of an `up`; removed ones finish what they hold",
        "down": "stop an `up`; what is queued stays queued",
    },
    "slurm": {"slurm": "a fleet on a Slurm cluster, for one file of questions"},
    "gateway": {"gateway": "serve OpenAI's API in front of the queue, and a page"},
    "services": {
        "batcher": "run a batcher, which groups questions into batches",
        "worker": "run a worker, which answers batches",
    },
    "health": {"health": "exit code 0 if this host's worker or batcher works"},
    "status": {
        "status": "show what the fleet is doing",
        "verify": "check the ledger of a run, or of all; exit code 3 if anything is missing or duplicated",
        "config": "print the settings that take effect, secrets masked",
    },
    "control": {
        "cancel": "end a run; questions without a record fail as `cancelled`",
        "drain": "make a worker finish what it holds and exit",
        "dead": "list, show, retry or drop what could not be read",
    },
    "forget": {"forget": "remove a run from Redis; its command then asks every question that has no answer line"},
    "cache": {"cache": "inspect or shrink a folder of `run --cache`"},
    "tune": {"tune": "find the fastest shape and settings for an engine by measuring"},
}
"""Module of `batchfleet.cli` -> its commands and what they are for, in the order in which `--help` shows them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors go to stderr, one line each; data alone goes to stdout."""
    argv = sys.argv[1:] if argv is None else argv
    with guarded_streams():
        arguments = command_parser(argv).parse_args(argv)
        # Only now: it takes longer than `--help` does.
        from batchfleet.cli.execute import execute  # noqa: PLC0415

        return execute(arguments)


def command_parser(argv: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The commands, as far as a command line needs them: importing all of them takes longer than most of them take.

    All for None.
    """
    parser = Parser(
        prog="batchfleet", description="A worker fleet for LLM inference over a message queue.", epilog=EXIT_CODES
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = shared_flags()
    name = argv[0] if argv else ""
    wanted = [module for module, names in COMMANDS.items() if argv is None or name in names]
    for module in wanted:
        importlib.import_module(f"batchfleet.cli.{module}").add_commands(commands, shared)  # noqa: TID251 (only what is wanted)
    if not wanted:
        for names in COMMANDS.values():
            for command, words in names.items():
                commands.add_parser(command, help=words)
    if argv is not None and not wanted:
        _complain_of_word(name, parser)
    return parser


def _version() -> str:
    # Only here: no other command needs it.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("batchfleet")
    except PackageNotFoundError:
        return "(not installed)"


def _complain_of_word(word: str, parser: argparse.ArgumentParser) -> None:
    """End with exit code 2 if a first word is no command: argparse would name all twenty."""
    if not word:
        parser.print_help(sys.stderr)
    elif word.startswith("-"):
        parser.add_argument("--version", action="version", version=f"batchfleet {_version()}")
        if word not in parser._option_string_actions:  # noqa: SLF001 (argparse has no other way to ask)
            parser.error(f"flags come after the command: batchfleet COMMAND {word} ...")
    elif word == "bench":
        parser.error("the benchmarks are not installed; from a checkout of batchfleet: python -m benchmarks NAME")
    elif word == "help":
        parser.print_help()
        parser.exit()
    else:
        known = [name for names in COMMANDS.values() for name in names]
        near = difflib.get_close_matches(word, known, 1)
        parser.error(
            f"there is no command {word!r}" + (f"; did you mean {near[0]!r}?" if near else "; --help lists them")
        )
