"""How many worker jobs there are to be: pure decisions.

They come from what was asked for, what the backlog is worth, and what Slurm has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from batchfleet.slurm.scheduler import Job

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 900.0
MOST_FAILURES = 10
"""Rounds of worker jobs that failed, one after the other, without any answer in between."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do about worker jobs.

    Attributes:
        submit: How many more to queue.
        cancel: Ids of those that wait and are not needed any more.
        drain: Ids of those that run and are more than was asked for: they finish what they hold.
    """

    submit: int = 0
    cancel: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()


def changes(jobs: Sequence[Job], *, asked: int, wanted: int) -> Changes:
    """Have `wanted` worker jobs, and never more than `asked`.

    Whatever Slurm still lists counts, those that are just ending included: it may be about to queue them again. One
    that it did queue again has to wait for two minutes, and is replaced by one that need not. Those that run are only
    ended where more were never asked for; an idle worker leaves by itself.
    """
    requeued = [job.id for job in jobs if job.is_pending and job.reason == "BeginTime"]
    waiting = [job.id for job in jobs if job.is_pending and job.id not in requeued]
    running = [job.id for job in jobs if job.state == "RUNNING"]
    there = len(jobs) - len(requeued)
    surplus = there - min(asked, wanted)
    if surplus <= 0:
        return Changes(submit=-surplus, cancel=tuple(requeued))
    # The latest first: the others have waited longer.
    dropped = waiting[max(0, len(waiting) - surplus) :]
    beyond = max(0, there - len(dropped) - asked)
    return Changes(cancel=(*requeued, *dropped), drain=tuple(running[len(running) - min(beyond, len(running)) :]))


@dataclass(frozen=True, slots=True)
class Failures:
    """Worker jobs that failed, so that a fleet whose workers cannot work does not queue them for ever.

    Attributes:
        seen: Ids of all that failed.
        records: Questions that had a record when the last one failed.
        rounds: Times in a row that some failed, with no record in between.
        until_s: Until when none is to be queued.
    """

    seen: frozenset[str] = frozenset()
    records: int = 0
    rounds: int = 0
    until_s: float = 0.0

    def after(self, failed: frozenset[str], records: int, now_s: float) -> Failures:
        """Take a look; each round of failures doubles the pause."""
        if failed <= self.seen:
            return replace(self, rounds=0, records=records, until_s=0.0) if records > self.records else self
        rounds = 1 if records > self.records else self.rounds + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (rounds - 1))
        return Failures(failed | self.seen, records, rounds, now_s + pause_s)

    @property
    def is_hopeless(self) -> bool:
        return self.rounds >= MOST_FAILURES
