"""What the user's side of `batchfleet slurm` does."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from batchfleet.humanize import count, plural
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.slurm import scheduler
from batchfleet.slurm.job_scripts import JobPlan, write_scripts
from batchfleet.slurm.queue_server import Certificate
from batchfleet.slurm.run_folder import MOST_JOBS, RunFolder
from batchfleet.slurm.scheduler import Job
from batchfleet.supervisor.up import grace_s
from wire.errors import UsageError

JOBS_POLL_S = 1.0
JOBS_STOP_S = 120.0
"""Beyond what workers may take to go."""


def certificate(cert: str | None, key: str | None, ca: str | None) -> Certificate | None:
    """From three flags, of which all or none are there.

    Raises:
        UsageError: Some are, or a file cannot be read.
    """
    files = [str(Path(name).absolute()) for name in (cert, key, ca) if name]
    if not files:
        return None
    if len(files) < 3:  # noqa: PLR2004 (the three of them)
        raise UsageError("TLS needs all three: --tls-cert, --tls-key and --tls-ca")
    for name in files:
        if not os.access(name, os.R_OK):
            raise UsageError(f"{name} is not there or cannot be read")
    return Certificate(*files)


def submit(plan: JobPlan, settings: Settings, workers: int, *, write_only: bool) -> int:
    """Write the scripts, and queue the controller.

    Raises:
        UsageError: The settings name no model, there is a controller already, or too many workers are asked for.
        SchedulerError: Slurm does not take it.
    """
    to_options.model_name(settings, to_options.engine_kind(settings, plan.engine))
    if workers > MOST_JOBS:
        raise UsageError(f"{workers} worker jobs? {MOST_JOBS} is the most")
    folder = RunFolder.of_answers(plan.answers)
    folder.create()
    for path in write_scripts(folder, plan):
        _say(f"{path} was edited, or made with other options, and is left as it is; remove it to have it written again")
    if write_only:
        _say(f"the scripts are in {folder.path}; the same command without --write-only queues them")
        return 0
    if there := scheduler.jobs(folder.controller_name):
        raise UsageError(f"job {there[0].id} already holds this queue; `batchfleet slurm stop {plan.answers}` ends it")
    folder.forget_stop()
    folder.ask_for(workers)
    job = scheduler.submit(folder.controller_script, folder.controller_name)
    _say(f"job {job} holds the queue, and submits up to {plural(workers, 'worker job')}; their logs: {folder.logs}")
    return 0


def status(answers: str, *, as_json: bool) -> int:
    folder = _folder(answers)
    controllers, workers = scheduler.jobs(folder.controller_name), scheduler.jobs(folder.worker_name)
    state = _state(folder)
    if as_json:
        shown = {
            "controller": [_shown(job) for job in controllers],
            "workers": dict(Counter(job.state.lower() for job in workers)),
            "asked": folder.asked_workers,
            **{name: state.get(name, 0) for name in ("wanted", "unanswered", "records")},
        }
        print(json.dumps(shown))
        return 0
    for job in controllers:
        print(f"queue    job {job.id}: {_words(job)}")
    if not controllers:
        print("queue    no job holds it; the same `batchfleet slurm submit` continues")
    states = Counter(job.state.lower() for job in workers)
    reasons = ", ".join(sorted({job.reason for job in workers if job.is_pending and job.reason not in {"", "None"}}))
    there = ", ".join(f"{number} {name}" for name, number in sorted(states.items())) or "none"
    print(f"workers  {there}{f' ({reasons})' if reasons else ''}; at most {folder.asked_workers} jobs were asked for")
    if state:
        ago_s = max(0, time.time() - float(state.get("at", 0)))
        worth = f"{count(state.get('unanswered', 0))} questions without an answer are worth "
        have = f"; {count(state.get('records', 0))} have one ({ago_s:.0f} s ago)"
        print(f"backlog  {worth}{plural(state.get('wanted', 0), 'worker job')}{have}")
    print(f"logs     {folder.logs}")
    return 0


def scale(answers: str, workers: int) -> int:
    if workers > MOST_JOBS:
        raise UsageError(f"{workers} worker jobs? {MOST_JOBS} is the most")
    folder = _folder(answers)
    folder.ask_for(workers)
    _say(f"at most {plural(workers, 'worker job')} from the next look on; those that go finish what they hold")
    return 0


def stop(answers: str, settings: Settings) -> int:
    """End all jobs in order: workers finish what they hold, and what has no answer stays in the queue."""
    folder = _folder(answers)
    folder.ask_to_stop()
    deadline = time.monotonic() + grace_s(settings) + JOBS_STOP_S
    said = ""
    while jobs := [*(keepers := scheduler.jobs(folder.controller_name)), *scheduler.jobs(folder.worker_name)]:
        if not any(job.state == "RUNNING" for job in keepers) or time.monotonic() > deadline:
            # Nobody is there to see them off.
            scheduler.cancel([job.id for job in jobs])
        if (now := f"{plural(len(jobs), 'job')} to end") != said:
            said = now
            _say(said)
        if time.monotonic() > deadline + JOBS_STOP_S:
            raise scheduler.SchedulerError(f"Slurm still lists {', '.join(job.id for job in jobs[:5])}")
        time.sleep(JOBS_POLL_S)
    _say(f"stopped; the same `batchfleet slurm submit` continues from {folder.path}")
    return 0


def _folder(answers: str) -> RunFolder:
    folder = RunFolder.of_answers(answers)
    if not folder.controller_script.exists():
        raise UsageError(f"there is no {folder.path}: `batchfleet slurm submit QUESTIONS -o {answers}` makes it")
    return folder


def _state(folder: RunFolder) -> dict[str, Any]:
    try:
        state = json.loads(folder.state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _shown(job: Job) -> dict[str, str]:
    return {"id": job.id, "state": job.state.lower(), "node": job.node, "reason": job.reason}


def _words(job: Job) -> str:
    where = f" on {job.node}" if job.node else ""
    return f"{job.state.lower()}{where}{f' ({job.reason})' if job.is_pending else ''}"


def _say(words: str) -> None:
    print(words, file=sys.stderr)
