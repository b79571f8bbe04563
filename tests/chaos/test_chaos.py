"""Seeded schedules of faults against a real fleet: four that never change, and two fresh ones whose seeds are printed."""

from __future__ import annotations

import itertools
import secrets
import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos.driving import run_schedule
from tests.chaos.schedule import DEFAULT_LEASES, KINDS, LASTING, SHORT, Fault, schedule_for
from tests.chaos.scoreboard import told

# Chosen so that together they hold every kind of fault.
FIXED = (325, 704, 2814, 3585)


@pytest.mark.slow
@pytest.mark.parametrize("seed", FIXED)
def test_nothing_is_lost_under_a_schedule_that_never_changes(seed: int) -> None:
    """Every question has exactly one line and one record, the ledger agrees, and nothing is left in Redis."""
    keeps_every_promise(seed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_nothing_is_lost_under_a_fresh_schedule(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As above; the seed is printed, and `scripts/chaos --seeds 1 --from SEED` repeats it."""
    seed = secrets.randbelow(10**9)
    with capsys.disabled():
        print(f"fresh schedule {number}: seed {seed}", file=sys.stderr)

    keeps_every_promise(seed)


def keeps_every_promise(seed: int) -> None:
    """Run one schedule; show what was found, and where the logs are."""
    # Not tmp_path: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="bf-chaos-"))
    outcome = run_schedule(schedule_for(seed), folder / str(seed))

    assert not outcome.findings, f"\n{told(outcome)}"
    assert (outcome.verdict.lost, outcome.verdict.duplicated) == (0, 0)
    folder.rmdir()


def test_a_seed_always_gives_the_same_schedule() -> None:
    """What failed once can be repeated."""
    for seed in range(50):
        assert schedule_for(seed) == schedule_for(seed)
    assert len({str(schedule_for(seed)) for seed in range(50)}) == 50


def test_the_fixed_schedules_hold_every_kind_of_fault() -> None:
    """A kind that none of them has would be tested by luck alone."""
    assert {fault.kind for seed in FIXED for fault in schedule_for(seed).faults} == set(KINDS)


def test_two_faults_never_seize_the_same_thing_at_once() -> None:
    """A process that is stopped cannot be killed as well: what one of them puts right would undo the other."""
    for seed in range(200):
        faults = [fault for fault in schedule_for(seed).faults if fault.kind != LASTING]
        assert not any(_overlap(one, other) for one, other in itertools.combinations(faults, 2)), str(schedule_for(seed))


def test_absences_outlast_the_leases() -> None:
    """Zombies come back after their lease, at short leases and at those that users have."""
    for pace in (SHORT, DEFAULT_LEASES):
        faults = [fault for seed in range(200) for fault in schedule_for(seed, pace).faults]
        assert all(fault.lasts_s > pace.batch_s for fault in faults if fault.kind == "stop-worker")
        assert all(fault.lasts_s > pace.leader_s for fault in faults if fault.kind == "stop-batcher")


def _overlap(one: Fault, other: Fault) -> bool:
    same = (one.target, KINDS[one.kind].seizes) == (other.target, KINDS[other.kind].seizes)
    return same and one.at_s < other.ends_s and other.at_s < one.ends_s
