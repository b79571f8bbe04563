"""`forget`."""

from __future__ import annotations

import argparse
import sys

from batchfleet.admin.forget import forget_run
from batchfleet.cli.flags import RUN, Commands, Shared
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from wire.connection import opened
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    forget = commands.add_parser(
        "forget",
        parents=shared.both,
        help="remove a run from Redis; its command then asks every question that has no answer line",
    )
    forget.add_argument("run", metavar="RUN", help=RUN)
    forget.set_defaults(command=_forget)


def _forget(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    with opened(address) as client:
        forget_run(client, Keys(address.namespace), arguments.run)
    print(
        (
            f"run {arguments.run} is forgotten; "
            "the command that submitted it asks every question again that has no line in its answers file"
        ),
        file=sys.stderr,
    )
    return 0
