"""One schedule from start to end: start a fleet, cause the faults, heal it, wait, and check the promises."""

from __future__ import annotations

import resource
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos import faults
from tests.chaos.conservation import Verdict, check_files, check_ledger, left_in_queues, left_without_owner
from tests.chaos.fleet_under_test import DEADLINE_S, FleetUnderTest
from tests.chaos.monitor import ConservationWatch
from tests.chaos.recovery import RecoveryWatch
from tests.chaos.schedule import PRODUCERS, Fault, Schedule

TICK_S = 0.02
LONGEST_TICK_S = 12.0
"""One tick may start a Redis, which may take 10 s. Whatever takes longer was not the fleet."""
FINISH_S = 45.0
"""How long after the last fault no answer may come before the fleet is taken to hang, at short leases.

It takes a few seconds; one that lost something, for ever. How fast it then is depends on what else the machine does.
"""
HOPELESS_S = 8.0
"""The same where something is known to be lost."""
SETTLE_S = 15.0
"""How long after the last answer the queue may take to be empty.

Zombies' leases lapse, their batches are found answered.
"""


@dataclass(slots=True)
class Outcome:
    """What came of one schedule.

    Attributes:
        questions: None, if the fleet did not start.
        folder: Has the logs of all processes, the files and Redis' data; gone if all was well.
        befell: Faults that could be done, by kind.
        recovered_s: For each batch of a killed worker, how long it was out of work.
        forgotten: Runs that were forgotten half-way, so that their names could be used again.
        looks: At how many instants conservation was looked for while it went on.
        lasted_s: From the start of the producers to their end.
        elapsed_s: The same, with the start of the fleet and the checks.
        cpu_s: What all its processes together used of the processor.
    """

    schedule: Schedule
    folder: Path
    questions: int = 0
    befell: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    recovered_s: list[float] = field(default_factory=list)
    forgotten: int = 0
    looks: int = 0
    lasted_s: float = 0.0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def findings(self) -> list[str]:
        """What was not as promised."""
        return self.verdict.findings


def run_schedule(schedule: Schedule, folder: Path, network: str, *, keep: bool = False) -> Outcome:
    """Run one schedule in `folder`, which is made, and removed again if all went well and it is not to be kept."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    (folder / "schedule.txt").write_text(f"{schedule}\n", encoding="utf-8")
    outcome = Outcome(schedule, folder)
    try:
        with FleetUnderTest(schedule, folder, network) as fleet:
            outcome.questions = schedule.pace.questions * len(PRODUCERS)
            _let_it_happen(fleet, outcome)
            _judge(fleet, outcome)
    except Exception:  # noqa: BLE001 (whatever breaks is a finding, with its seed, and the next schedule continues)
        outcome.findings.append(f"the driver itself failed:\n{traceback.format_exc()}")
    outcome.elapsed_s = time.monotonic() - began
    outcome.cpu_s = _cpu_s()
    if outcome.findings:
        (folder / "findings.txt").write_text("\n".join(outcome.findings) + "\n", encoding="utf-8")
    elif not keep:
        shutil.rmtree(folder)
    return outcome


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class _Clock:
    """Seconds since the beginning, without those in which this process did not run.

    A machine that was suspended has not seen a fleet hang.
    """

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self.now_s = 0.0
        self.paused_s = 0.0

    def tick(self) -> None:
        """Sleep a little, and continue."""
        time.sleep(TICK_S)
        passed_s = time.monotonic() - self._looked_at
        self._looked_at += passed_s
        self.now_s += min(passed_s, LONGEST_TICK_S)
        self.paused_s += max(0.0, passed_s - LONGEST_TICK_S)


def _let_it_happen(fleet: FleetUnderTest, outcome: Outcome) -> None:
    """Begin and end every fault at its time, then wait until both producers have everything."""
    recovery, conservation, clock = RecoveryWatch(), ConservationWatch(), _Clock()
    to_begin, to_end = list(fleet.schedule.faults), list[Fault]()
    healed_s = max((fault.ends_s for fault in to_begin), default=0.0)
    written = 0
    while to_begin or to_end or not fleet.done():
        clock.tick()
        if (now_written := fleet.written_bytes) != written:
            written, healed_s = now_written, max(healed_s, clock.now_s)
        # What is lost already does not come back.
        if clock.now_s > healed_s + (HOPELESS_S if conservation.findings else FINISH_S * fleet.schedule.pace.slowness):
            outcome.findings.append(f"not finished, and for {clock.now_s - healed_s:.0f} s no answer came")
            break
        _end_due(fleet, to_end, clock.now_s)
        for fault in _begin_due(fleet, to_begin, clock.now_s):
            outcome.befell[fault.kind] += 1
            to_end.append(fault)
            if fault.kind == "kill-worker":
                recovery.killed(fleet, fault.target)
        fleet.supervise()
        recovery.look(fleet)
        conservation.look(fleet, clock.now_s)
    outcome.recovered_s, outcome.looks, outcome.lasted_s = (
        recovery.took_s,
        conservation.looks,
        clock.now_s + clock.paused_s,
    )
    outcome.findings.extend(conservation.findings)
    outcome.forgotten = fleet.asked


def _begin_due(fleet: FleetUnderTest, to_begin: list[Fault], now_s: float) -> Iterator[Fault]:
    """Do what is due; yields what could be done."""
    while to_begin and to_begin[0].at_s <= now_s:
        fault = to_begin.pop(0)
        if faults.begin(fleet, fault):
            yield fault


def _end_due(fleet: FleetUnderTest, to_end: list[Fault], now_s: float) -> None:
    for fault in [fault for fault in to_end if fault.ends_s <= now_s]:
        faults.end(fleet, fault)
        to_end.remove(fault)


def _judge(fleet: FleetUnderTest, outcome: Outcome) -> None:
    verdict = outcome.verdict
    server, deadline = fleet.members["redis"], time.monotonic() + SETTLE_S
    # On a busy machine one that was told to end may not have heard of it yet.
    while (server.doomed or not fleet.ask(lambda client: client.ping())) and time.monotonic() < deadline:
        fleet.supervise()
        time.sleep(TICK_S)
    with redis.Redis.from_url(fleet.server.url, protocol=2) as client:
        deadline = time.monotonic() + SETTLE_S
        while (left := left_in_queues(client, may_have_records=fleet.rolled_back)) and time.monotonic() < deadline:
            fleet.supervise()
            time.sleep(5 * TICK_S)
        verdict.findings += left
        for member in fleet.members.values():
            verdict.findings += member.surprises
        verdict.findings += fleet.leave()
        check_files(fleet, client, verdict, may_expire=outcome.lasted_s > DEADLINE_S)
        check_ledger(fleet, client, verdict)
        verdict.findings += left_without_owner(client)
    verdict.findings += _tracebacks(fleet)


def _tracebacks(fleet: FleetUnderTest) -> list[str]:
    """A program that is prepared for what befell it says so in a line; a traceback says that it was not."""
    found = []
    for path in sorted([*fleet.folder.glob("*.log"), *fleet.folder.glob("up/*.log")]):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if path.name != "redis.log" and any("Traceback (most recent call last)" in line for line in lines):
            last = next((line for line in reversed(lines) if line and not line[0].isspace() and "rror" in line), "?")
            found.append(f"{path.name} has a traceback: {last[:200]}")
    return found
