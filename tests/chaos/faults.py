"""How each kind of fault is done to a fleet, and put right again."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

import redis

from tests.chaos.fleet_under_test import FleetUnderTest, Member
from tests.chaos.schedule import Fault

Doing = Callable[[FleetUnderTest, Fault], bool]
"""Returns whether there was anything to do it to: a producer that has finished cannot be killed."""
Undoing = Callable[[FleetUnderTest, Fault], None]

LEFT_BYTES = 20_000
GONE_S = 10.0
FITS_BYTES = 700
"""What still fits on a full disk: a few lines, and a torn one."""


def begin(fleet: FleetUnderTest, fault: Fault) -> bool:
    """Do it; returns whether it could be done."""
    return _HOW[fault.kind.partition("-")[0]][0](fleet, fault)


def end(fleet: FleetUnderTest, fault: Fault) -> None:
    """Put it right."""
    _HOW[fault.kind.partition("-")[0]][1](fleet, fault)


def _end_process(number: signal.Signals) -> Doing:
    def do(fleet: FleetUnderTest, fault: Fault) -> bool:
        member = fleet.members[fault.target]
        if member.pid is None:
            return False
        member.down = member.doomed = True
        os.kill(member.pid, number)
        return True

    return do


def _let_start(fleet: FleetUnderTest, fault: Fault) -> None:
    fleet.members[fault.target].down = False


def _stop(fleet: FleetUnderTest, fault: Fault) -> bool:
    return _signal(fleet.members[fault.target], signal.SIGSTOP)


def _continue(fleet: FleetUnderTest, fault: Fault) -> None:
    _signal(fleet.members[fault.target], signal.SIGCONT)


def _signal(member: Member, number: signal.Signals) -> bool:
    if member.pid is None:
        return False
    os.kill(member.pid, number)
    return True


def _part(fleet: FleetUnderTest, fault: Fault) -> bool:
    if fleet.members[fault.target].pid is None:
        return False
    if fault.variant == "deaf":
        fleet.network.hold_replies(fault.target)
    else:
        fleet.network.hold(fault.target)
    return True


def _join(fleet: FleetUnderTest, fault: Fault) -> None:
    if fault.variant == "lost":
        fleet.network.reset(fault.target)
    else:
        fleet.network.release(fault.target)


def _cut_clients(fleet: FleetUnderTest, _fault: Fault) -> bool:
    return bool(fleet.ask(lambda client: client.client_kill_filter(_type="normal", skipme=True)))


def _fill_memory(fleet: FleetUnderTest, fault: Fault) -> bool:
    def fill(client: redis.Redis) -> bool:
        used = int(client.info("memory")["used_memory"])
        fleet.is_memory_to_be_freed = False
        return bool(client.config_set("maxmemory", used // 2 if fault.variant == "half" else used + LEFT_BYTES))

    return bool(fleet.ask(fill))


def _free_memory(fleet: FleetUnderTest, _fault: Fault) -> None:
    """As soon as Redis hears it: another fault may have stopped it."""
    fleet.is_memory_to_be_freed = True


def _copy_data(fleet: FleetUnderTest, _fault: Fault) -> bool:
    """What a replica has by now that hears no more.

    The beginning of the append-only file, which is what the primary sends.
    """
    if fleet.members["redis"].pid is None:
        return False
    fleet.server.copy_data()
    return True


def _fail_over(fleet: FleetUnderTest, _fault: Fault) -> None:
    """The primary is gone, and with it what it did since; where it was, the replica answers."""
    member = fleet.members["redis"]
    if member.process is not None and member.pid is not None:
        member.doomed = True
        member.process.kill()
        member.process.wait(GONE_S)
    fleet.server.use_copy()
    fleet.rolled_back = True


def _sleep(fleet: FleetUnderTest, fault: Fault) -> bool:
    """The server does nothing else for so long, and is not gone; its reply comes too late for us."""
    if fleet.members["redis"].pid is None:
        return False
    fleet.ask(lambda client: client.execute_command("DEBUG", "SLEEP", fault.lasts_s))
    return True


def _flush_scripts(fleet: FleetUnderTest, _fault: Fault) -> bool:
    return bool(fleet.ask(lambda client: client.script_flush()))


def _flush_again(fleet: FleetUnderTest, _fault: Fault) -> None:
    fleet.ask(lambda client: client.script_flush())


def _forget(fleet: FleetUnderTest, fault: Fault) -> None:
    """Its producer has ended.

    If its run can be forgotten, it asks other questions under the same names, in a file of their own.
    """
    member = fleet.members[fault.target]
    if member.pid is None and not member.ended and fleet.command("forget", fault.target, name="forget")[0] == 0:
        fleet.ask_others(fault.target)
        fleet.forgotten.add(fault.target)
    member.down = False


def _scale(fleet: FleetUnderTest, fault: Fault) -> bool:
    return fleet.members[fault.target].pid is not None and fleet.scale(2)


def _scale_back(fleet: FleetUnderTest, _fault: Fault) -> None:
    fleet.scale(1)


def _fill_disk(fleet: FleetUnderTest, fault: Fault) -> bool:
    """No file of the process may grow beyond what its answers file has now, and a little.

    Writes then fail half-way, as on a full disk.
    """
    member, answers = fleet.members[fault.target], fleet.answers(fault.target)
    if member.pid is None or not answers.exists():
        return False
    hard = resource.prlimit(member.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (answers.stat().st_size + FITS_BYTES, hard))
    member.down = member.doomed = True
    return True


def _empty_disk(fleet: FleetUnderTest, fault: Fault) -> None:
    member = fleet.members[fault.target]
    member.down = False
    if member.pid is not None:
        hard = resource.prlimit(member.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (hard, hard))


def _nothing(_fleet: FleetUnderTest, _fault: Fault) -> None:
    return


_HOW: dict[str, tuple[Doing, Undoing]] = {
    "kill": (_end_process(signal.SIGKILL), _let_start),
    "term": (_end_process(signal.SIGTERM), _let_start),
    "stop": (_stop, _continue),
    "partition": (_part, _join),
    "cut": (_cut_clients, _nothing),
    "oom": (_fill_memory, _free_memory),
    "full": (_fill_disk, _empty_disk),
    "failover": (_copy_data, _fail_over),
    "sleep": (_sleep, _nothing),
    "flush": (_flush_scripts, _flush_again),
    "forget": (_end_process(signal.SIGTERM), _forget),
    "scale": (_scale, _scale_back),
    # The fleet starts its processes with the clocks that the schedule names.
    "wrong": (lambda _fleet, _fault: True, _nothing),
}
