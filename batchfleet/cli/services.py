"""`batcher` and `worker`: what supervisors start."""

from __future__ import annotations

import argparse

from batchfleet.cli.flags import Commands, Shared, add_engine, add_server, add_settings
from batchfleet.settings.schema import Settings


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    batcher = commands.add_parser(
        "batcher", parents=shared.both, help="run a batcher, which groups questions into batches"
    )
    batcher.set_defaults(command=_batcher, usual_log_level="info")
    worker = commands.add_parser("worker", parents=shared.both, help="run a worker, which answers batches")
    add_engine(worker)
    add_server(worker)
    add_settings(worker)
    worker.set_defaults(command=_worker, usual_log_level="info")


def _batcher(_arguments: argparse.Namespace, settings: Settings) -> int:
    # Only here, as below: neither needs what the other one imports.
    from batchfleet.supervisor.batcher_service import serve_batcher  # noqa: PLC0415

    return serve_batcher(settings)


def _worker(arguments: argparse.Namespace, settings: Settings) -> int:
    from batchfleet.supervisor.worker_service import serve_worker  # noqa: PLC0415

    return serve_worker(settings, arguments.engine)
