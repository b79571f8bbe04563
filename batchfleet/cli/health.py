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
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    health = commands.add_parser(
        "health", parents=shared.both, help="exit code 0 if this host's worker or batcher works"
    )
    health.set_defaults(command=_health)


def _health(_arguments: argparse.Namespace, settings: Settings) -> int:
    address = redis_address(settings)
    with opened(address) as client:
        ill = health_problem(client, Keys(address.namespace), socket.gethostname(), patience_s=settings.leases.batch_s)
    if ill is not None:
        print(f"batchfleet: {ill}", file=sys.stderr)
    return 0 if ill is None else 3
