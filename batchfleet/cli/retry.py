"""`retry`: runs the command that asked the questions again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from batchfleet.cli.flags import EXIT_CODES, Commands, Shared
from batchfleet.settings.schema import Settings
from producer.answers.sidecar import stored_about
from wire.errors import UsageError


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:  # noqa: ARG001 (its flags are those of `run` and `submit`)
    command = commands.add_parser(
        "retry",
        help="ask failed questions again",
        description=(
            "Asks retryable failures again, with the command kept in ANSWERS.run. Each line stays until it is replaced."
        ),
        epilog=EXIT_CODES,
    )
    command.add_argument("answers", metavar="ANSWERS", help="answers of `run` or `submit`")
    command.add_argument(
        "flags",
        nargs=argparse.REMAINDER,
        metavar="FLAGS",
        help="flags of `run` or `submit` to add, such as --kind prompt_too_long --config longer.yaml; they win",
    )
    command.set_defaults(command=_retry, config=None, log_level=None, log_format="text", redis=None, finds_fleet=False)


def _retry(arguments: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 (the other command has its own)
    # Only here: they import the commands.
    from batchfleet.cli.execute import execute  # noqa: PLC0415
    from batchfleet.cli.main import command_parser  # noqa: PLC0415

    argv = retry_command(Path(arguments.answers), arguments.flags)
    return execute(command_parser(argv).parse_args(argv))


def retry_command(answers: Path, flags: Sequence[str]) -> list[str]:
    """The words of the command that asks again what failed.

    Raises:
        UsageError: They were not kept.
    """
    about = stored_about(answers)
    if not about:
        raise UsageError(
            f"{answers}: no {answers.name}.run says which run it is of; name the file that was given with `-o`"
        )
    kept = about.get("command")
    if (
        not isinstance(kept, list)
        or not all(isinstance(word, str) for word in kept)
        or kept[:1] not in (["run"], ["submit"])
    ):
        raise UsageError(
            f"{answers}.run lacks the command that asked (earlier versions kept none, nor is one kept that reads "
            "standard input); run that command again with --retry"
        )
    return [*kept, "--retry", *flags]
