"""`status`, `verify` and `config`: they change nothing."""

from __future__ import annotations

import argparse
import json

from fleet import building
from fleet.commands.flags import Commands, Shared, add_json
from fleet.ledger import read_ledger
from fleet.settings.schema import Settings
from fleet.settings.show import show_settings
from fleet.status import read_status
from wire.connection import connect, translated
from wire.keys import Keys


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    status = commands.add_parser("status", parents=shared.both, help="what the fleet is doing")
    add_json(status)
    status.set_defaults(command=_status)
    verify = commands.add_parser("verify", parents=shared.both, help="the ledger of a run; exit code 3 if anything is missing or double")
    verify.add_argument("run", metavar="RUN")
    add_json(verify)
    verify.set_defaults(command=_verify)
    config = commands.add_parser("config", parents=shared.both, help="print the settings that take effect, secrets masked")
    config.set_defaults(command=_config)


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    address = building.redis_address(settings)
    with connect(address) as client, translated(address):
        status = read_status(client, Keys(address.namespace))
    if arguments.json:
        print(json.dumps(status))
        return 0
    for queue in status["queues"]:
        print("queue   {model}: {waiting_questions} questions and {waiting_batches} batches wait, {in_flight_questions} in flight".format(**queue))
    for worker in status["workers"]:
        print("worker  {name}: {state}, {model} on {engine}, {in_flight} of {capacity} in flight, {answers_per_s:.1f}/s".format(**worker))
    for batcher in status["batchers"]:
        print("batcher {name}: {state}, {batches} batches, {questions} questions".format(**batcher))
    for line in status["advice"]:
        print(f"advice  {line}")
    return 0


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    address = building.redis_address(settings)
    with connect(address) as client, translated(address):
        ledger = read_ledger(client, Keys(address.namespace), arguments.run)
    if arguments.json:
        print(json.dumps(ledger.as_dict()))
    else:
        print(
            f"run {ledger.run}: {ledger.accepted} accepted, {ledger.answered} answered, {ledger.failed} failed, "
            f"{ledger.missing} missing, {ledger.duplicates} duplicates"
        )
    return 3 if ledger.missing or ledger.duplicates else 0


def _config(_arguments: argparse.Namespace, settings: Settings) -> int:
    print(show_settings(settings), end="")
    return 0
