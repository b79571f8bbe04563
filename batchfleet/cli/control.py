"""`cancel`, `drain` and `dead`: what a person changes in a running fleet."""

from __future__ import annotations

import argparse
import json
import sys

from batchfleet.admin.control import cancel_run, drain_here, drain_worker
from batchfleet.admin.dead_letters import DeadLetters
from batchfleet.cli.flags import RUN, Commands, Shared, add_json
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from wire.connection import opened
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    cancel = commands.add_parser(
        "cancel", parents=shared.both, help="end a run; questions without a record fail as `cancelled`"
    )
    cancel.add_argument("run", metavar="RUN", help=RUN)
    cancel.set_defaults(command=_cancel)
    drain = commands.add_parser("drain", parents=shared.both, help="make a worker finish what it holds and exit")
    which = drain.add_mutually_exclusive_group(required=True)
    which.add_argument("worker", nargs="?", metavar="WORKER", help="its name, as `status` shows it")
    which.add_argument(
        "--here", action="store_true", help="the workers of this host or container; returns when they have finished"
    )
    drain.set_defaults(command=_drain)
    dead = commands.add_parser("dead", parents=shared.both, help="list, show, retry or drop what could not be read")
    dead.add_argument(
        "action",
        choices=["list", "show", "retry", "drop"],
        help="list all, a line each; show one; queue one again; delete one",
    )
    dead.add_argument("id", nargs="?", metavar="ID", help="as `dead list` shows it")
    add_json(dead, "one JSON object a line on stdout")
    dead.set_defaults(command=_dead)


def _cancel(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    with opened(address) as client:
        accepted, terminal = cancel_run(
            client, Keys(address.namespace), arguments.run, run_ttl_s=settings.limits.run_ttl_s
        )
    rest = "the others end as failures of kind `cancelled`"
    print(
        f"run {arguments.run} is cancelled: {terminal} of {accepted} questions had their record; {rest}",
        file=sys.stderr,
    )
    return 0


def _drain(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    with opened(address) as client:
        if arguments.here:
            return 0 if drain_here(client, Keys(address.namespace), settings.leases.drain_s) else 3
        drain_worker(client, Keys(address.namespace), arguments.worker)
    print(f"worker {arguments.worker} takes nothing more, finishes what it holds and ends", file=sys.stderr)
    return 0


def _dead(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    with opened(address) as client:
        letters = DeadLetters(client, Keys(address.namespace))
        match arguments.action:
            case "list":
                letter = None
                for letter in letters.all():
                    print(json.dumps(letter.as_dict()) if arguments.json else letter.as_line())
                if letter is None:
                    print("there are no dead letters", file=sys.stderr)
            case "show":
                print(
                    json.dumps(letters.get(arguments.id).as_dict(with_data=True), indent=None if arguments.json else 2)
                )
            case "retry":
                queued = letters.retry(arguments.id)
                print(f"{arguments.id}: {queued} questions wait for a worker again", file=sys.stderr)
            case "drop":
                letters.drop(arguments.id)
    return 0
