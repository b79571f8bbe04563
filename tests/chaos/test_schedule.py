"""What `scripts/chaos` will do to a fleet is decided by the seed alone, and holds what it should."""

from __future__ import annotations

import itertools

from tests.chaos.schedule import DEFAULT_LEASES, FIXED_SEEDS, KINDS, LASTING, SHORT, Fault, schedule_for


def test_a_seed_always_gives_the_same_schedule() -> None:
    """What failed once can be repeated."""
    for seed in range(50):
        assert schedule_for(seed) == schedule_for(seed)
    assert len({str(schedule_for(seed)) for seed in range(50)}) == 50


def test_the_fixed_schedules_hold_every_kind_of_fault() -> None:
    """A kind that none of them has would be tested by luck alone."""
    assert {fault.kind for seed in FIXED_SEEDS for fault in schedule_for(seed).faults} == set(KINDS)


def test_two_faults_never_seize_the_same_thing_at_once() -> None:
    """A process that is stopped cannot be killed as well: what one of them puts right would undo the other."""
    for seed in range(200):
        faults = [fault for fault in schedule_for(seed).faults if fault.kind != LASTING]
        assert not any(_overlap(one, other) for one, other in itertools.combinations(faults, 2)), str(
            schedule_for(seed)
        )


def test_absences_outlast_the_leases() -> None:
    """Zombies come back after their lease, at short leases and at those that users have."""
    for pace in (SHORT, DEFAULT_LEASES):
        faults = [fault for seed in range(200) for fault in schedule_for(seed, pace).faults]
        assert all(fault.lasts_s > pace.batch_s for fault in faults if fault.kind == "stop-worker")
        assert all(fault.lasts_s > pace.leader_s for fault in faults if fault.kind == "stop-batcher")


def _overlap(one: Fault, other: Fault) -> bool:
    same = (one.target, KINDS[one.kind].seizes) == (other.target, KINDS[other.kind].seizes)
    return same and one.at_s < other.ends_s and other.at_s < one.ends_s
