"""The `batchfleet` command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import redis.exceptions

from batchfleet import logs
from batchfleet.cli.flags import EXIT_CODES, shared_flags
from batchfleet.cli.load_settings import load
from batchfleet.cli.parser import Parser
from batchfleet.settings.mask import secret_texts
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.hosts import HostSilentError
from batchfleet.supervisor.processes import ChildGaveUpError, ChildRefusedError
from batchfleet.supervisor.state_folder import default_folder, with_running
from batchfleet.terminal import guarded_streams
from wire.errors import EngineDeadError, FleetError, LeaseLostError, QueueUnavailableError

log = logging.getLogger(__name__)

COMMANDS = {
    "run": ("run", "submit", "convert"),
    "score": ("score",),
    "sweep": ("sweep",),
    "up": ("up", "scale", "down"),
    "services": ("batcher", "worker"),
    "health": ("health",),
    "status": ("status", "verify", "config"),
    "control": ("cancel", "drain", "dead"),
    "forget": ("forget",),
    "tune": ("tune",),
}
"""Module of `batchfleet.cli` -> its commands, in the order in which `--help` shows them."""


BUG = 70
"""Exit code for what nobody foresaw: EX_SOFTWARE of sysexits.h."""
MOST_OF_A_BUG = 300


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors go to stderr, one line each; data alone goes to stdout."""
    with guarded_streams():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    arguments = command_parser(argv).parse_args(argv)
    # Not a default of the flag: argparse shares flags among commands, defaults included.
    arguments.log_level = arguments.log_level or getattr(arguments, "usual_log_level", "warning")
    secrets = logs.set_up(arguments.log_level, arguments.log_format)
    try:
        settings = _settings(arguments)
        secrets.learn(secret_texts(settings))
        return int(arguments.command(arguments, settings))
    except (
        EngineDeadError,
        LeaseLostError,
        ChildGaveUpError,
        HostSilentError,
        QueueUnavailableError,
        redis.exceptions.ResponseError,
    ) as error:
        return _complain(error, 2 if isinstance(error, ChildRefusedError) else 3)
    except FleetError as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; closing quietly is what a filter does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 (a bug, whatever it is: Python's own exit code for it, 1, means that questions failed)
        return _complain(_bug(error, secrets, is_service=hasattr(arguments, "usual_log_level")), BUG)


def _bug(error: Exception, secrets: logs.Secrets, *, is_service: bool) -> str:
    """One line about an error that nobody foresaw.

    Its traceback goes to the log of a service, and beside a command to a file of its own.
    """
    where = "above"
    if is_service:
        log.critical("unexpected %s", type(error).__name__, exc_info=error)
    else:
        text = secrets.masked("".join(traceback.format_exception(error)))
        try:
            # Only this user may read it: messages may quote questions.
            with tempfile.NamedTemporaryFile(
                "w", prefix="batchfleet-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
            ) as file:
                file.write(text)
            where = file.name
        except OSError:
            print(text, file=sys.stderr)
    said = secrets.masked(" ".join(str(error).split()))[:MOST_OF_A_BUG]
    return (
        f"unexpected {type(error).__name__}: {said} (a bug of batchfleet; its traceback is "
        f"{where if where == 'above' else f'in {where}'})"
    )


def _complain(error: Exception | str, code: int) -> int:
    try:
        print(f"batchfleet: {error}", file=sys.stderr, flush=True)
    except OSError:
        # The disk that is full may be the log's as well. The exit code still tells; Python must not find the rest of
        # the line when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code


def _settings(arguments: argparse.Namespace) -> Settings:
    loaded = load(arguments)
    for warning in loaded.warnings:
        print(f"batchfleet: warning: {warning}", file=sys.stderr)
    if not getattr(arguments, "finds_fleet", False):
        return loaded.settings
    return with_running(
        loaded.settings, Path(arguments.state) if getattr(arguments, "state", None) else default_folder(os.environ)
    )


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
    wanted = [module for module, names in COMMANDS.items() if name in names]
    for module in wanted or COMMANDS:
        importlib.import_module(f"batchfleet.cli.{module}").add_commands(commands, shared)  # noqa: TID251 (only what is wanted)
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
