"""The `batchfleet` command."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fleet import asking, building
from fleet.bench.cli import add_commands as add_benchmarks
from fleet.control import cancel_run, drain_worker
from fleet.dead_letters import DeadLetters
from fleet.ledger import read_ledger
from fleet.processes import ChildGaveUpError
from fleet.serving import examine, serve_batcher, serve_worker
from fleet.settings import Settings
from fleet.settings_loading import load_settings
from fleet.settings_show import show_settings
from fleet.status import read_status
from wire.connection import connect, translated
from wire.errors import EngineBootError, EngineDeadError, FleetError, LeaseLostError, QueueUnavailableError, UsageError
from wire.keys import Keys

EXIT_CODES = "exit codes: 0 every question answered; 1 some failed; 2 usage, configuration or input error; 3 not finished; 130 interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors go to stderr, one line each; data alone goes to stdout."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=arguments.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    try:
        settings = _settings(arguments)
        return int(arguments.command(arguments, settings))
    except (UsageError, EngineBootError) as error:
        return _complain(error, 2)
    except (EngineDeadError, LeaseLostError, ChildGaveUpError, QueueUnavailableError) as error:
        return _complain(error, 3)
    except FleetError as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; closing quietly is what a filter does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(error: Exception, code: int) -> int:
    print(f"batchfleet: {error}", file=sys.stderr)
    return code


def _settings(arguments: argparse.Namespace) -> Settings:
    overrides = {}
    if getattr(arguments, "redis", None):
        overrides["redis.url"] = arguments.redis
    if getattr(arguments, "model", None):
        overrides["model.generator_settings.model"] = arguments.model
    loaded = load_settings(Path(arguments.config) if arguments.config else None, os.environ, overrides)
    for warning in loaded.warnings:
        print(f"batchfleet: warning: {warning}", file=sys.stderr)
    return loaded.settings


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    return asking.run_file(_asking(arguments), settings, building.engine_kind(settings, arguments.engine), arguments.workers)


def _submit(arguments: argparse.Namespace, settings: Settings) -> int:
    return asking.submit_file(_asking(arguments), settings)


def _asking(arguments: argparse.Namespace) -> asking.Asking:
    return asking.Asking(
        questions=Path(arguments.questions),
        answers=Path(arguments.output),
        run=arguments.run,
        skip_invalid=arguments.skip_invalid,
        quiet=arguments.quiet,
        as_json=arguments.json,
    )


def _batcher(_arguments: argparse.Namespace, settings: Settings) -> int:
    return serve_batcher(settings)


def _worker(arguments: argparse.Namespace, settings: Settings) -> int:
    return serve_worker(settings, arguments.engine)


def _health(_arguments: argparse.Namespace, settings: Settings) -> int:
    ill = examine(settings)
    if ill is not None:
        print(f"batchfleet: {ill}", file=sys.stderr)
    return 0 if ill is None else 3


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


def _cancel(arguments: argparse.Namespace, settings: Settings) -> int:
    address = building.redis_address(settings)
    with connect(address) as client, translated(address):
        accepted, terminal = cancel_run(client, Keys(address.namespace), arguments.run, run_ttl_s=settings.limits.run_ttl_s)
    rest = "the others end as failures of kind `cancelled`"
    print(f"run {arguments.run} is cancelled: {terminal} of {accepted} questions had their record; {rest}", file=sys.stderr)
    return 0


def _drain(arguments: argparse.Namespace, settings: Settings) -> int:
    address = building.redis_address(settings)
    with connect(address) as client, translated(address):
        drain_worker(client, Keys(address.namespace), arguments.worker)
    print(f"worker {arguments.worker} takes nothing more, finishes what it holds and ends", file=sys.stderr)
    return 0


def _dead(arguments: argparse.Namespace, settings: Settings) -> int:
    address = building.redis_address(settings)
    with connect(address) as client, translated(address):
        letters = DeadLetters(client, Keys(address.namespace))
        match arguments.action:
            case "list":
                for letter in letters.all():
                    print(json.dumps(letter.as_dict()) if arguments.json else letter.as_line())
            case "show":
                print(json.dumps(letters.get(arguments.id).as_dict(with_data=True), indent=None if arguments.json else 2))
            case "retry":
                letters.retry(arguments.id)
                print(f"{arguments.id} waits for a worker again", file=sys.stderr)
            case "drop":
                letters.drop(arguments.id)
    return 0


def _config(_arguments: argparse.Namespace, settings: Settings) -> int:
    print(show_settings(settings), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="batchfleet", description="A worker fleet for LLM inference over a message queue.", epilog=EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="YAML configuration")
    common.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="warning")
    queue = argparse.ArgumentParser(add_help=False)
    queue.add_argument("--redis", metavar="URL", help="redis://, rediss:// or unix:// URL; or set BATCHFLEET_REDIS_URL")

    run = commands.add_parser("run", parents=[common, queue], help="the whole fleet on this machine, for one file", epilog=EXIT_CODES)
    _add_asking(run)
    run.add_argument("--engine", choices=building.ENGINES, help="what answers (default: what the configuration describes)")
    run.add_argument("--workers", type=_positive, default=1, metavar="N", help="worker processes (default: 1)")
    run.set_defaults(command=_run)

    submit = commands.add_parser("submit", parents=[common, queue], help="ask a fleet that runs elsewhere", epilog=EXIT_CODES)
    _add_asking(submit)
    submit.set_defaults(command=_submit)

    batcher = commands.add_parser("batcher", parents=[common, queue], help="serve: put questions into batches")
    batcher.set_defaults(command=_batcher, log_level="info")
    worker = commands.add_parser("worker", parents=[common, queue], help="serve: answer batches")
    worker.add_argument("--engine", choices=building.ENGINES, help="what answers (default: what the configuration describes)")
    worker.set_defaults(command=_worker, log_level="info")

    health = commands.add_parser("health", parents=[common, queue], help="exit code 0 if the worker or batcher of this host does its work")
    health.set_defaults(command=_health)
    status = commands.add_parser("status", parents=[common, queue], help="what the fleet is doing")
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    status.set_defaults(command=_status)
    verify = commands.add_parser("verify", parents=[common, queue], help="the ledger of a run; exit code 3 if anything is missing or double")
    verify.add_argument("run", metavar="RUN")
    verify.add_argument("--json", action="store_true", help="one JSON object on stdout")
    verify.set_defaults(command=_verify)
    cancel = commands.add_parser("cancel", parents=[common, queue], help="end a run: what has no record yet becomes a failure of kind `cancelled`")
    cancel.add_argument("run", metavar="RUN")
    cancel.set_defaults(command=_cancel)
    drain = commands.add_parser("drain", parents=[common, queue], help="have a worker finish what it holds and end")
    drain.add_argument("worker", metavar="WORKER", help="its name, as `status` shows it")
    drain.set_defaults(command=_drain)
    dead = commands.add_parser("dead", parents=[common, queue], help="what could not be read, with the reasons")
    dead.add_argument("action", choices=["list", "show", "retry", "drop"])
    dead.add_argument("id", nargs="?", metavar="ID", help="of the dead letter, as `dead list` shows it")
    dead.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    dead.set_defaults(command=_dead)
    add_benchmarks(commands, common)
    config = commands.add_parser("config", parents=[common, queue], help="print the settings that take effect, secrets masked")
    config.set_defaults(command=_config)
    return parser


def _add_asking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", metavar="QUESTIONS", help="JSONL, a JSON array, or an OpenAI batch file")
    parser.add_argument("-o", "--output", required=True, metavar="ANSWERS", help="JSONL, one line per question, written as answers arrive")
    parser.add_argument("--run", metavar="ID", help="name of the run (default: derived from what is asked, so that the same command resumes)")
    parser.add_argument("--model", metavar="NAME", help="the model for questions that name none")
    parser.add_argument("--skip-invalid", action="store_true", help="make failure records of lines that cannot be used")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress and no summary on stderr")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        msg = f"{number} is not 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return number
