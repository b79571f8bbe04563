"""`status` says what needs a person, with the figures that it comes from, and says nothing where nothing does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchfleet.status.advice import advise
from batchfleet.status.model import (
    BatcherStatus,
    FleetStatus,
    QueueStatus,
    RedisStatus,
    Trouble,
    VanishedStatus,
    WorkerStatus,
)

LEADER = BatcherStatus("b1", "leading", batch_size=16)


def a_worker(name: str = "w1", **fields: Any) -> WorkerStatus:  # noqa: ANN401 (any field of a worker)
    """A worker of the stub in the middle of its work."""
    defaults: dict[str, Any] = {
        "state": "running",
        "model": "stub",
        "capacity": 64,
        "max_num_seqs": 64,
        "in_flight": 64,
        "answers_per_s": 9.0,
    }
    return WorkerStatus(name, **{**defaults, **fields})


def a_queue(**fields: Any) -> QueueStatus:  # noqa: ANN401 (any field of a queue)
    """A queue in which questions wait for their turn."""
    defaults: dict[str, Any] = {
        "model": "stub",
        "waiting_questions": 5000,
        "waiting_batches": 64,
        "in_flight_questions": 64,
        "batch_fill": 1.0,
    }
    return QueueStatus(
        **{**defaults, "oldest_s": 90.0, "batches_lately": 300, "questions_lately": 4800, "full_lately": 300, **fields}
    )


def a_fleet(**fields: Any) -> FleetStatus:  # noqa: ANN401 (any field of a fleet)
    """A fleet at work, without any trouble."""
    defaults: dict[str, Any] = {"queues": (a_queue(),), "workers": (a_worker(),), "batchers": (LEADER,), "leader": "b1"}
    return FleetStatus(**{**defaults, "redis": RedisStatus(10, 100, "noeviction"), **fields})


def on(*hosts_ahead_s: float) -> FleetStatus:
    """A fleet of hosts whose clocks are ahead of Redis' by so much."""
    workers = (a_worker(f"h{number}-a", clock_ahead_s=ahead_s) for number, ahead_s in enumerate(hosts_ahead_s))
    return a_fleet(workers=tuple(workers), batchers=(replace(LEADER, name="h0-1-a", clock_ahead_s=hosts_ahead_s[0]),))


OOM = Trouble("engine_dead", 30.0, "w9", "stub", "CUDA out of memory. Tried to allocate 2 GiB")
IDLE_BESIDE = (a_worker(), a_worker("w2", model="other", in_flight=0, idle_s=40.0))

TROUBLES = [
    ("no leader", a_fleet(leader="", batchers=()), "no batcher leads (none reports)", "start `batchfleet batcher`"),
    (
        "no worker",
        a_fleet(workers=()),
        "no worker serves stub, for which there are 5 000 questions and 64 batches",
        "start `batchfleet worker` for it",
    ),
    (
        "hosts gone",
        a_fleet(vanished=tuple(VanishedStatus(f"h{n}-a", "worker", 60.0 * n, "stub", 64, 8) for n in range(1, 7))),
        "6 hosts stopped reporting: h1 1 min 00 s ago, with 1 worker with 64 questions in flight and 8 GPUs, h2",
        "look whether it runs",
    ),
    ("a clock", on(0.4, -7200.0, 0.0), "clocks differ from Redis': h1 is 2 h 00 min behind:", "check NTP"),
    ("Redis' clock", on(61.0, 60.0, 59.5), "the clock of Redis' host is 1 min 01 s behind, by those of all 3", "NTP"),
    (
        "out of memory",
        a_fleet(troubles=(OOM, OOM)),
        "ran out of memory 2 times in 10 min, last on w9 30 s ago",
        "lower max_num_seqs",
    ),
    (
        "engine died",
        a_fleet(troubles=(Trouble("engine_dead", 5, "w9", "stub", "it hung"),)),
        "the engine of stub died on w9 5 s ago",
        "it hung",
    ),
    (
        "did not boot",
        a_fleet(troubles=(Trouble("engine_boot", 5, "w9", "stub", "no file"),)),
        "did not boot on w9",
        "no file",
    ),
    (
        "suspects",
        a_fleet(queues=(a_queue(suspect_batches=2),)),
        "workers keep dying of 2 batches of stub",
        "run alone until the culprit is found",
    ),
    (
        "newer",
        a_fleet(
            queues=(a_queue(newer_batches=2, newer_version=9),),
            workers=(a_worker(wire_version=8), a_worker("w2", model="other", wire_version=9)),
        ),
        "2 batches of stub can only be read by workers of wire version 9 or newer (those that run speak up to 8)",
        "start workers of the version that asked",
    ),
    (
        "idle",
        a_fleet(workers=(a_worker(in_flight=0, idle_s=8.0),)),
        "worker w1 of stub had nothing to do for 8 s",
        "5 000 questions wait, the first for 1 min 30 s",
    ),
    (
        "starving",
        a_fleet(workers=IDLE_BESIDE),
        "stub starves: 5 000 questions wait, the first for 1 min 30 s",
        "worker w2 of other had nothing to do for 40 s",
    ),
    (
        "capacity",
        a_fleet(workers=(a_worker(capacity=16),)),
        "at most 16 questions in flight, but the engine works on 64",
        "parallel_workers",
    ),
    (
        "memory",
        a_fleet(redis=RedisStatus(900 * 2**20, 1000 * 2**20, "noeviction")),
        "Redis uses 900 of 1000 MiB",
        "raise maxmemory",
    ),
    (
        "policy",
        a_fleet(redis=RedisStatus(1, 100, "allkeys-lru")),
        "maxmemory-policy allkeys-lru",
        "set it to noeviction",
    ),
    ("dead letters", a_fleet(dead_letters=3), "3 dead letters", "`batchfleet dead list`"),
    (
        "batches",
        a_fleet(
            queues=(a_queue(batch_fill=0.2, questions_lately=960, full_lately=0),), workers=(a_worker(in_flight=4),)
        ),
        "batches of stub are 20% full: 3.2 questions on average, and 300 of the last 300 went before they were full",
        "room for 60 more questions",
    ),
]


@pytest.mark.parametrize(
    ("status", "figures", "words"), [trouble[1:] for trouble in TROUBLES], ids=[trouble[0] for trouble in TROUBLES]
)
def test_a_trouble_is_named_with_its_figures(status: FleetStatus, figures: str, words: str) -> None:
    """One line, which says how much and what to do; nothing else is complained of."""
    (line,) = advise(status)

    assert figures in line
    assert words in line


NO_TROUBLE = {
    "at work": a_fleet(),
    "nothing to do": a_fleet(
        queues=(a_queue(waiting_questions=0, waiting_batches=0, oldest_s=0.0),),
        workers=(a_worker(in_flight=0, idle_s=900.0),),
    ),
    "a moment between two batches": a_fleet(
        queues=(a_queue(oldest_s=0.1),), workers=(a_worker(in_flight=0, idle_s=1.0),)
    ),
    "batches that a newer worker is about to take": a_fleet(
        queues=(a_queue(newer_batches=2, newer_version=9),),
        workers=(a_worker(wire_version=8), a_worker(wire_version=9)),
    ),
    "few batches so far": a_fleet(queues=(a_queue(batch_fill=0.1, batches_lately=2),)),
    "an engine that died yesterday": a_fleet(
        troubles=(Trouble("engine_dead", 80_000.0, "w9", "stub", "out of memory"),)
    ),
    "capacity above max_num_seqs": a_fleet(workers=(a_worker(capacity=128),)),
    "a worker that boots": a_fleet(workers=(a_worker(state="booting", in_flight=0, max_num_seqs=0),)),
    "no maxmemory": a_fleet(redis=RedisStatus(10**12, 0, "noeviction")),
}


@pytest.mark.parametrize("status", NO_TROUBLE.values(), ids=NO_TROUBLE)
def test_no_advice_without_trouble(status: FleetStatus) -> None:
    """Advice that comes when nothing is wrong teaches people not to read it."""
    assert advise(status) == []
