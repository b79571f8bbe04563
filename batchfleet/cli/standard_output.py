"""`-o -`: answers are kept in a temporary folder until they are complete, and go to standard output then."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from wire.errors import UsageError

STDOUT = "-"
_DONE = (0, 1)
"""Exit codes of a run whose answers are complete."""


def deliver(arguments: argparse.Namespace, command: Callable[[], int]) -> int:
    """Carry out a command that writes `arguments.output`, which may be `-`; returns its exit code.

    Answers of a run that was stopped stay in the folder, and what the command says of going on names it.

    Raises:
        UsageError: Something else is to go to standard output as well.
    """
    if arguments.output != STDOUT:
        return command()
    if getattr(arguments, "json", False):
        raise UsageError("-o - and --json both want standard output; give -o a file")
    folder = Path(tempfile.mkdtemp(prefix="batchfleet-"))
    answers = folder / "answers.jsonl"
    arguments.output = str(answers)
    arguments.run = getattr(arguments, "run", None) or f"run-{secrets.token_hex(6)}"
    is_over = True
    try:
        code = command()
        is_over = code in _DONE
        if is_over:
            with answers.open("rb") as file:
                if sys.stdout.isatty():
                    # As text, so that it passes through `batchfleet.terminal`: an answer may hold what a terminal
                    # obeys.
                    sys.stdout.writelines(line.decode("utf-8", "replace") for line in file)
                else:
                    shutil.copyfileobj(file, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
        return code
    finally:
        if is_over or not _has_answers(folder):
            shutil.rmtree(folder, ignore_errors=True)


def instead(argv: list[str], output: str, run: str) -> list[str]:
    """The command line that goes on with answers that were meant for standard output."""
    return [
        output if word == STDOUT and argv[number - 1] in ("-o", "--output") else word
        for number, word in enumerate(argv)
    ] + ["--run", run]


def _has_answers(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob("answers.jsonl*") if path.suffix in (".jsonl", ".journal"))
