"""One command, from its settings to its exit code. Imported once the command line is known to be right."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path

import redis.exceptions

from batchfleet import logs
from batchfleet.cli.load_settings import load
from batchfleet.settings.mask import secret_texts
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.host_control import HostSilentError
from batchfleet.supervisor.processes import ChildGaveUpError, ChildRefusedError
from batchfleet.supervisor.state_folder import default_folder, with_running
from wire.errors import EngineDeadError, FleetError, LeaseLostError, QueueUnavailableError

log = logging.getLogger(__name__)

BUG = 70
"""Exit code for what nobody foresaw: EX_SOFTWARE of sysexits.h."""
MOST_OF_A_BUG = 300


def execute(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit code. Errors go to stderr, one line each."""
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
