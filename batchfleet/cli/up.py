"""`up`, `scale` and `down`: a long-running fleet on this host."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from batchfleet.cli.flags import Commands, Shared, add_engine, add_server, add_settings, not_negative, positive
from batchfleet.humanize import plural
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.status.model import HostStatus
from batchfleet.supervisor.host_control import find_host, known_hosts, scale_host, stop_hosts
from batchfleet.supervisor.scale_rule import WorkerRange
from batchfleet.supervisor.state_folder import default_folder
from batchfleet.supervisor.up import UpPlan, grace_s, stay_up
from wire.connection import connect
from wire.keys import Keys
from wire.redis_errors import translated

HEARING_S = 30.0
"""Beyond what workers may take to go: for the request to be heard, and for a machine that is busy."""


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    up = commands.add_parser(
        "up",
        parents=shared.both,
        help="start a long-running fleet on this host: Redis (unless one is named), batchers and workers",
    )
    add_engine(up)
    add_server(up)
    add_settings(up)
    up.add_argument(
        "--workers",
        type=_worker_range,
        default=WorkerRange(1, 1),
        metavar="N|MIN:MAX",
        help="worker processes, or a range to scale with the backlog, such as 0:8 (default: 1)",
    )
    up.add_argument(
        "--batchers",
        type=not_negative,
        default=2,
        metavar="N",
        help="one leads, the others stand by (default: 2); 0 if they are on another host",
    )
    up.add_argument(
        "--redis-patience",
        type=positive,
        metavar="S",
        help="exit with code 3 after Redis has been away this long (default: wait for ever)",
    )
    up.add_argument(
        "--leave-idle",
        action="store_true",
        help="with MIN:MAX workers: start with MAX, and exit once the backlog needs none",
    )
    _add_state(up)
    up.set_defaults(command=_up, usual_log_level="info", finds_fleet=False)

    scale = commands.add_parser(
        "scale",
        parents=shared.both,
        help="change the number of workers of an `up`; removed ones finish what they hold",
    )
    scale.add_argument("workers", type=_worker_range, metavar="N|MIN:MAX", help="number of workers, or a range")
    _add_host(scale)
    scale.set_defaults(command=_scale)

    down = commands.add_parser("down", parents=shared.both, help="stop an `up`; what is queued stays queued")
    _add_host(down)
    down.add_argument(
        "--all", action="store_true", help="every `up` on that Redis: first those with workers, then the others"
    )
    down.set_defaults(command=_down)


def _worker_range(text: str) -> WorkerRange:
    """For argparse, which would not show what a ValueError says."""
    try:
        return WorkerRange.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state", metavar="FOLDER", help="folder of queue and logs (default: ~/.local/state/batchfleet/HOST)"
    )


def _add_host(parser: argparse.ArgumentParser) -> None:
    _add_state(parser)
    parser.add_argument("--host", metavar="NAME", help="which `up`, if several share a Redis")


def _up(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.workers.most:
        # What is wrong with the settings is said before anything is started.
        to_options.model_name(settings, to_options.engine_kind(settings, arguments.engine))
    folder = Path(arguments.state) if arguments.state else default_folder(os.environ)
    return stay_up(
        UpPlan(
            arguments.engine,
            arguments.workers,
            arguments.batchers,
            folder,
            arguments.log_level,
            arguments.log_format,
            arguments.redis_patience,
            arguments.leave_idle,
        ),
        settings,
    )


def _scale(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    keys, said = Keys(address.namespace), set[str]()

    def show(host: HostStatus) -> None:
        finish = "finishes what it holds" if host.leaving == 1 else "finish what they hold"
        leaving = f", {host.leaving} {finish}" if host.leaving else ""
        between = f" of {host.least}:{host.most}" if host.least < host.most else ""
        line = f"{host.shown(known)}: {plural(host.workers, 'worker')}{between}{leaving}"
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    with connect(address) as client, translated(address):
        known = known_hosts(client, keys)
        host = find_host(client, keys, arguments.host)
        scale_host(client, keys, host, arguments.workers, patience_s=grace_s(settings) + HEARING_S, show=show)
    return 0


def _down(arguments: argparse.Namespace, settings: Settings) -> int:
    address = to_options.redis_address(settings)
    keys = Keys(address.namespace)
    with connect(address) as client, translated(address):
        known = known_hosts(client, keys)
        hosts = known if arguments.all else [find_host(client, keys, arguments.host)]
        # Those that may have no workers have the batchers, and perhaps the Redis that workers need to the end.
        for some in ([host for host in hosts if host.most], [host for host in hosts if not host.most]):
            for host in some:
                if host.workers:
                    print(
                        f"{host.shown(known)}: {plural(host.workers, 'worker')} to finish what they hold",
                        file=sys.stderr,
                    )
            stop_hosts(client, keys, some, patience_s=grace_s(settings) + HEARING_S)
            for host in some:
                print(f"{host.shown(known)} is down", file=sys.stderr)
    return 0
