"""The rule by which `up --workers MIN:MAX` scales, over simulated hours, and who goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from batchfleet.status.model import HostStatus
from batchfleet.status.workers import WorkerSnapshot
from batchfleet.supervisor.engine_measures import EngineMeasures
from batchfleet.supervisor.scale_down_order import Usefulness, first_to_go, usefulness
from batchfleet.supervisor.scale_rule import (
    MOST_WORKERS,
    Load,
    Scale,
    WorkerRange,
    needed_here,
    needed_workers,
)

CAPACITY, ANSWER_S, BOOT_S, IDLE_S = 10, 5, 40, 60
"""A worker answers 2 questions a second, and 80 while another one boots."""


@dataclass
class SimulatedWorker:
    """`held`: when each of its questions will be answered."""

    ready_s: int
    held: list[int] = field(default_factory=list)


@dataclass
class SimulatedHost:
    """Lives by the rule, a second a step.

    Attributes:
        wanted: How many workers were wanted, each second.
        working: How many workers there were, the same.
        boots: Engines started.
        ended_busy: Workers that were ended while they held questions.
    """

    limits: WorkerRange
    wanted: list[int] = field(default_factory=list)
    working: list[int] = field(default_factory=list)
    boots: int = 0
    ended_busy: int = 0
    first_answer_s: int | None = None
    last_answer_s: int = 0
    answered: int = 0
    _waiting: list[int] = field(default_factory=list)
    _workers: dict[int, SimulatedWorker] = field(default_factory=dict)
    _measures: EngineMeasures = field(default_factory=lambda: EngineMeasures(CAPACITY))
    _scale: Scale = field(default_factory=lambda: Scale(0))

    def live(self, asked: Mapping[int, list[int]], until_s: int) -> None:
        """`asked`: at each second, how long each new question takes to be answered."""
        for now in range(until_s):
            self._waiting += asked.get(now, [])
            for worker in self._workers.values():
                self._work(worker, now)
            self._look(now)

    def _work(self, worker: SimulatedWorker, now: int) -> None:
        done = [until for until in worker.held if until <= now]
        self.answered += len(done)
        if done:
            self.first_answer_s = now if self.first_answer_s is None else self.first_answer_s
            self.last_answer_s = now
        worker.held = [until for until in worker.held if until > now]
        while now >= worker.ready_s and self._waiting and len(worker.held) < CAPACITY:
            worker.held.append(now + self._waiting.pop(0))

    def _look(self, now: int) -> None:
        seen = {
            number: WorkerSnapshot(
                f"w{number}", number, "running" if now >= worker.ready_s else "booting", "", CAPACITY,
                len(worker.held), len(worker.held) / ANSWER_S,
            )
            for number, worker in self._workers.items()
        }  # fmt: skip
        measures = self._measures
        measures.observe(self._workers, list(seen.values()), now)
        unanswered = len(self._waiting) + sum(len(worker.held) for worker in self._workers.values())
        load = Load(unanswered, measures.capacity, measures.per_s, measures.boot_s)
        self._scale = self._scale.after(self.limits.clamp(needed_workers(load)), now, IDLE_S)
        self.wanted.append(self._scale.wanted)
        while len(self._workers) < self._scale.wanted:
            self.boots += 1
            self._workers[self.boots] = SimulatedWorker(now + BOOT_S)
        ranks = {number: usefulness(seen.get(number), is_running=True) for number in self._workers}
        for number in first_to_go(ranks, len(self._workers) - self._scale.wanted, only_idle=True):
            self.ended_busy += bool(self._workers.pop(number).held)
        self.working.append(len(self._workers))

    @property
    def changes(self) -> int:
        """How often another number of workers was wanted."""
        return sum(before != after for before, after in zip(self.wanted, self.wanted[1:], strict=False))


def test_a_burst_takes_it_from_zero_to_the_most_and_back_to_zero() -> None:
    """The first answer comes when an engine has booted; the last worker goes within two idle times."""
    host = SimulatedHost(WorkerRange(0, 8))

    host.live({100: [ANSWER_S] * 2000}, 600)

    assert (host.answered, host.ended_busy) == (2000, 0)
    assert host.first_answer_s == 100 + 1 + BOOT_S + ANSWER_S - 1
    assert max(host.wanted) == host.boots == 8
    assert host.wanted[99] == host.wanted[-1] == 0
    assert IDLE_S <= host.wanted.index(0, 101) - host.last_answer_s <= 2 * IDLE_S


def test_bursts_that_come_again_within_the_idle_time_boot_no_engine_again() -> None:
    """Twenty of them, half an idle time apart: up once, down once."""
    host = SimulatedHost(WorkerRange(0, 8))

    host.live({burst * 30: [ANSWER_S] * 20 for burst in range(20)}, 1000)

    assert (host.answered, host.ended_busy) == (400, 0)
    assert host.boots == max(host.wanted)
    assert sorted(host.wanted[:1]) == [2]
    assert host.wanted[-1] == 0
    assert host.changes <= 1 + max(host.wanted)


def test_once_measured_a_backlog_that_is_done_before_another_engine_booted_boots_none() -> None:
    """Of 70 questions, one worker makes as short work as a boot takes; 700 are worth more."""
    host = SimulatedHost(WorkerRange(0, 8))

    host.live({0: [ANSWER_S] * 50, 400: [ANSWER_S] * 70, 800: [ANSWER_S] * 700}, 1400)

    assert max(host.wanted[400:700]) == 1
    assert max(host.wanted[800:]) == 8
    assert (host.answered, host.ended_busy) == (820, 0)


def test_a_long_tail_keeps_the_workers_that_hold_it() -> None:
    """Each of eight has an answer of half an hour, and one would be enough: none is ended that holds work."""
    host = SimulatedHost(WorkerRange(0, 8))

    host.live({0: ([ANSWER_S] * 9 + [1800]) * 8 + [ANSWER_S] * 720}, 2400)

    assert (host.answered, host.ended_busy) == (800, 0)
    assert host.working[1000] == 8
    assert host.wanted[1000] == 1
    assert host.wanted[-1] == 0
    assert host.changes <= 1 + 8


@pytest.mark.parametrize("every_s", [1, 2, 7, 45])
def test_a_steady_trickle_does_not_make_it_flap(every_s: int) -> None:
    """A question now and then, for an hour: one worker from the first to the last."""
    host = SimulatedHost(WorkerRange(0, 8))

    host.live({now: [ANSWER_S] for now in range(0, 3600, every_s)}, 3800)

    assert max(host.wanted[200:3600]) == min(host.wanted[200:3600]) == 1
    assert host.ended_busy == 0
    assert host.wanted[-1] == 0


def test_the_range_holds() -> None:
    """Never below the least, never above the most."""
    host = SimulatedHost(WorkerRange(2, 3))

    host.live({100: [ANSWER_S] * 2000}, 900)

    assert (min(host.wanted), max(host.wanted), host.wanted[-1]) == (2, 3, 2)


def test_hosts_share_one_backlog() -> None:
    """Fixed ones count first, then each fills up before the next; hosts of other models do not count."""
    hosts = [
        HostStatus("a-1", model="stub", least=0, most=4),
        HostStatus("b-1", model="stub", least=0, most=4),
        HostStatus("c-1", model="stub", least=2, most=2),
        HostStatus("0-1", model="llama", least=0, most=9),
    ]

    shares = [needed_here(9, hosts, name, "stub") for name in ("a-1", "b-1")]

    assert [min(share, 4) for share in shares] == [4, 3]
    assert needed_here(2, hosts, "a-1", "stub") == 0


def test_nothing_known_is_one_worker() -> None:
    """It will say what it can do; of no question, none."""
    assert [needed_workers(Load(unanswered)) for unanswered in (0, 1, 10**7)] == [0, 1, 1]


def test_the_idle_go_before_those_that_hold_work() -> None:
    """Before them those that could not work yet; of equals the youngest.

    With `only_idle` none that holds work, may, or drains already.
    """
    seen = [
        WorkerSnapshot("busy", 1, "running", in_flight=3),
        WorkerSnapshot("idle", 2, "running"),
        WorkerSnapshot("idle too", 3, "waiting"),
        WorkerSnapshot("boots", 4, "booting"),
        WorkerSnapshot("stands by", 5, "standby"),
        WorkerSnapshot("drains", 6, "draining"),
    ]
    ranks = {worker.pid: usefulness(worker, is_running=True) for worker in seen}
    ranks |= {7: usefulness(None, is_running=True), 8: usefulness(seen[0], is_running=False)}

    assert first_to_go(ranks, 8, only_idle=False) == [8, 5, 4, 7, 3, 2, 6, 1]
    assert first_to_go(ranks, 8, only_idle=True) == [8, 5, 4, 3, 2]
    assert first_to_go({1: Usefulness.IDLE}, -2, only_idle=True) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8:2", "MIN is above MAX"),
        ("x", "neither a number of workers nor a range"),
        (":8", "neither"),
        ("1:2:3", "neither"),
        ("-1", "neither"),
        ("9" * 5000, "neither"),
        ("0:1025", f"{MOST_WORKERS} is the most"),
    ],
)
def test_what_is_no_range_is_refused(text: str, words: str) -> None:
    """With what it should be."""
    with pytest.raises(ValueError, match=words):
        WorkerRange.parse(text)


def test_a_range_is_shown_as_it_is_written() -> None:
    """A fixed number is one of one."""
    assert [str(WorkerRange.parse(text)) for text in ("4", "0:8", "4:4")] == ["4", "0:8", "4"]
    assert WorkerRange(2, 8).at_most(1) == WorkerRange(1, 1)
