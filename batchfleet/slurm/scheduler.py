"""Slurm's commands, as far as a fleet needs them."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import FleetError

TIMEOUT_S = 60.0
"""A busy controller of a large cluster takes its time."""
ONE_CALL = 500
"""Ids that one `scancel` takes."""


class SchedulerError(FleetError):
    """A command of Slurm failed, did not answer, or is not there."""


@dataclass(frozen=True, slots=True)
class Job:
    """One that is not over: it waits, runs, or is just ending.

    Attributes:
        id: Of an element of an array: ARRAY_INDEX.
        state: In Slurm's words, such as PENDING or RUNNING.
        reason: Why it waits.
        node: Where it runs.
    """

    id: str
    state: str
    reason: str = ""
    node: str = ""

    @property
    def is_pending(self) -> bool:
        return self.state == "PENDING"


def submit(script: Path, name: str, *options: str) -> str:
    """Queue a script; returns the job's id."""
    printed = _run("sbatch", "--parsable", f"--job-name={name}", *options, str(script))
    # With several clusters: ID;CLUSTER.
    return printed.strip().partition(";")[0]


def jobs(name: str) -> list[Job]:
    """This user's jobs of that name, the elements of arrays one by one."""
    lines = _run(
        "squeue", "--noheader", "--array", f"--user={getpass.getuser()}", f"--name={name}", "--format=%i|%T|%r|%N"
    )
    return [Job(*line.split("|")) for line in lines.splitlines() if re.match(r"\d+(_\d+)?\|[^|]*\|[^|]*\|[^|]*$", line)]


def cancel(ids: Sequence[str], *options: str) -> None:
    """End jobs, or send them a signal; those that are over already are none of its concern."""
    for first in range(0, len(ids), ONE_CALL):
        _run("scancel", "--quiet", *options, *ids[first : first + ONE_CALL])


def is_being_requeued(job: str, restarts: int) -> bool:
    """Whether Slurm ends a job only to queue it again, as it does with what it preempts."""
    found = re.search(r"\bRestarts=(\d+)", _run("scontrol", "--oneliner", "show", "job", job))
    return found is not None and int(found[1]) > restarts


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)  # noqa: S603 (Slurm's own commands, without a shell)
    except FileNotFoundError:
        raise SchedulerError(
            f"there is no {command[0]} here: run `batchfleet slurm` on a host that can submit jobs"
        ) from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise SchedulerError(f"{command[0]} did not answer: {error}") from None
    if done.returncode:
        raise SchedulerError(
            f"{command[0]} failed: {' '.join(done.stderr.split())[-500:] or f'exit code {done.returncode}'}"
        )
    return done.stdout
