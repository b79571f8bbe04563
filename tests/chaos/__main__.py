"""`python -m tests.chaos`: many seeded schedules of faults, and the scoreboard.

A table goes to stderr, one JSON object to stdout. With --add, nothing is run: scoreboards of earlier calls become one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.chaos.driver import Outcome, run_schedule
from tests.chaos.namespaces import why_no_namespaces
from tests.chaos.network import NETWORKS, network_kind
from tests.chaos.schedule import DEFAULT_LEASES, FIXED_SEEDS, KINDS, SHORT, schedule_for
from tests.chaos.scoreboard import Scoreboard, added, as_text, told
from tests.redis_servers import server_version


def main() -> int:
    """Returns 0 if every schedule kept every promise, 1 if not, 2 for wrong arguments."""
    arguments = _parser().parse_args()
    if arguments.add:
        return _show(added([json.loads(path.read_text(encoding="utf-8")) for path in arguments.add]))
    kinds = [kind for kind in KINDS if any(fnmatch(kind, pattern) for pattern in arguments.faults.split(","))]
    if not kinds:
        print(f"no fault is named {arguments.faults}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if arguments.server:
        os.environ["BATCHFLEET_REDIS_SERVER"] = str(arguments.server.absolute())
    pace = DEFAULT_LEASES if arguments.default_leases else SHORT
    first = secrets.randbelow(10**9) if arguments.first is None else arguments.first
    seeds = [*(FIXED_SEEDS if arguments.fixed else ()), *range(first, first + arguments.seeds)]
    # Short: the path of a socket has about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix="bf-chaos-"))
    command = f"scripts/chaos --seeds {arguments.seeds} --from {first} --faults '{arguments.faults}'"
    flags = [
        flag for flag, given in (("--fixed", arguments.fixed), ("--default-leases", arguments.default_leases)) if given
    ]
    network = network_kind() if arguments.network == "auto" else arguments.network
    board = Scoreboard(pace, " ".join([command, *flags]), network, server_version())
    print(
        f"{board.command}\nnetwork: {_network_words(network)}\n{board.redis}\nlogs of failed schedules: {folder}",
        file=sys.stderr,
    )
    # A fresh process for each schedule: what one leaves behind cannot help or harm the next. Forked from one that has
    # imported everything.
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["tests.chaos.driver"])
    with ProcessPoolExecutor(arguments.jobs, fresh, max_tasks_per_child=1) as pool:
        schedules = (schedule_for(seed, pace, kinds) for seed in seeds)
        running = [
            pool.submit(run_schedule, schedule, folder / str(schedule.seed), network, keep=arguments.keep)
            for schedule in schedules
        ]
        for future in as_completed(running):
            board.outcomes.append(future.result())
            _tell(board.outcomes[-1], len(board.outcomes), len(seeds))
    # Gone if every schedule went well.
    with contextlib.suppress(OSError):
        folder.rmdir()
    for outcome in board.failed:
        print(told(outcome), file=sys.stderr)
    return _show(board.as_dict())


def _show(figures: Mapping[str, Any]) -> int:
    print(as_text(figures), file=sys.stderr)
    print(json.dumps(figures))
    return 1 if figures["failed_seeds"] else 0


def _network_words(network: str) -> str:
    if network == "namespaces":
        return "namespaces, one for each process; partitions lose packets"
    return (
        "a proxy for each process, which holds up what it should pass; namespaces: "
        f"{why_no_namespaces() or 'not wanted'}"
    )


def _tell(outcome: Outcome, number: int, of: int) -> None:
    faults = sum(outcome.befell.values())
    well = "well" if not outcome.findings else f"FAILED\n{told(outcome)}"
    print(
        f"{number}/{of} seed {outcome.schedule.seed}: {faults} faults, {outcome.elapsed_s:.1f} s, {well}",
        file=sys.stderr,
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many schedules (default: 10)")
    parser.add_argument(
        "--from", type=int, dest="first", metavar="SEED", help="the first seed (default: a fresh one, which is printed)"
    )
    parser.add_argument(
        "--fixed",
        action="store_true",
        help=f"before them, the schedules that CI always runs: {', '.join(map(str, FIXED_SEEDS))}",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="schedules at the same time (default: 1)")
    parser.add_argument(
        "--faults", default="*", metavar="KINDS", help=f"comma-separated, with wildcards: {', '.join(KINDS)}"
    )
    parser.add_argument(
        "--default-leases",
        action="store_true",
        help="leases as users have them, and longer schedules: for the recovery time",
    )
    words = (
        "how processes are cut off from Redis: network namespaces need root and iproute2 (default: those, or else the "
        "proxy)"
    )
    parser.add_argument("--network", choices=("auto", *NETWORKS), default="auto", help=words)
    parser.add_argument(
        "--add", nargs="+", type=Path, metavar="FILE", help="run nothing, and add up what earlier calls wrote to stdout"
    )
    parser.add_argument(
        "--server", type=Path, metavar="PATH", help="the redis-server or valkey-server (default: as the tests find one)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of schedules that went well, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
