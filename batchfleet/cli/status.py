"""`status`, `verify` and `config`: they change nothing."""

from __future__ import annotations

import argparse
import json
from typing import Any

import redis

from batchfleet.cli.flags import RUN, Commands, Shared, add_json
from batchfleet.humanize import count, plural
from batchfleet.runs.ledger import Ledger, every_ledger, read_ledger
from batchfleet.settings import to_options
from batchfleet.settings.mask import show_settings
from batchfleet.settings.schema import Settings
from batchfleet.status.advice import advise
from batchfleet.status.read import read_status
from batchfleet.status.watch import show, watch
from producer.whereabouts import whereabouts
from wire.connection import opened
from wire.errors import UsageError
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    status = commands.add_parser("status", parents=shared.both, help="show what the fleet is doing")
    add_json(status)
    status.add_argument("--watch", action="store_true", help="keep showing it until Ctrl-C")
    status.set_defaults(command=_status)
    verify = commands.add_parser(
        "verify",
        parents=shared.both,
        help="check the ledger of a run, or of all; exit code 3 if anything is missing or duplicated",
    )
    verify.add_argument("run", metavar="RUN", nargs="?", help=f"{RUN}; without it, all runs that Redis has")
    add_json(verify)
    verify.set_defaults(command=_verify)
    config = commands.add_parser(
        "config", parents=shared.both, help="print the settings that take effect, secrets masked"
    )
    config.set_defaults(command=_config)


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    if arguments.watch and arguments.json:
        raise UsageError("--watch is for people and --json for programs; give one of them")
    with opened(address) as client:
        status = read_status(client, Keys(address.namespace))
    if arguments.watch:
        watch(address)
    elif arguments.json:
        print(json.dumps({**status.as_dict(), "advice": advise(status)}))
    else:
        show(status)
    return 0


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    keys = Keys(address.namespace)
    with opened(address) as client:
        one = arguments.run
        ledgers = [read_ledger(client, keys, one)] if one else list(every_ledger(client, keys))
        under_way = {ledger.run for ledger in ledgers if ledger.missing and _is_under_way(client, keys, ledger.run)}
    if arguments.json:
        every = [ledger.as_dict() for ledger in ledgers]
        print(json.dumps(every[0] if one else {"runs": every}))
    else:
        print("\n".join(_words(ledger, is_under_way=ledger.run in under_way) for ledger in ledgers) or "no runs")
    return 3 if any(ledger.missing or ledger.duplicates for ledger in ledgers) else 0


def _words(ledger: Ledger, *, is_under_way: bool) -> str:
    return (
        f"run {ledger.run}: {count(ledger.accepted)} accepted, {count(ledger.answered)} answered, "
        f"{count(ledger.failed)} failed, {count(ledger.missing)} "
        f"{'not answered yet' if is_under_way else 'missing'}, {plural(ledger.duplicates, 'duplicate')}"
    )


def _is_under_way(client: redis.Redis, keys: Keys, run: str) -> bool:
    """Whether questions of it are queued or in work. What is just being moved is seen at the second look."""
    epoch: Any = client.hget(keys.run(run), "epoch") or b""
    return any(whereabouts(client, keys, run, epoch.decode("utf-8", "replace")).underway for _ in range(2))


def _config(_arguments: argparse.Namespace, settings: Settings) -> int:
    print(show_settings(settings), end="")
    return 0
