"""`health`: what supervisors ask, every few seconds. So it imports little."""

from __future__ import annotations

import argparse
import socket
import sys

from batchfleet.cli.flags import Commands, Shared
from batchfleet.settings.redis_address import redis_address
from batchfleet.settings.schema import Settings
from gpu_worker.reports.health import health_problem
from wire.connection import opened
from wire.errors import QueueUnavailableError
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    health = commands.add_parser(
        "health", parents=shared.both, help="exit code 0 if this host's worker or batcher works"
    )
    health.add_argument(
        "--redis-may-be-away",
        action="store_true",
        help="also 0 while Redis does not answer: for whoever would restart a worker, which boots its engine anew",
    )
    health.set_defaults(command=_health)


def _health(arguments: argparse.Namespace, settings: Settings) -> int:
    address, patience_s = redis_address(settings), settings.leases.batch_s
    try:
        with opened(address) as client:
            ill = health_problem(client, Keys(address.namespace), socket.gethostname(), patience_s=patience_s)
    except QueueUnavailableError as error:
        if not arguments.redis_may_be_away:
            raise
        print(f"batchfleet: nothing is known: {error}", file=sys.stderr)
        return 0
    if ill is not None:
        print(f"batchfleet: {ill}", file=sys.stderr)
    return 0 if ill is None else 3
