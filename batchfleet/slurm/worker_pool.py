"""Keeps as many worker jobs in Slurm as the backlog is worth, and sees them off at the end."""

from __future__ import annotations

import json
import logging
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchfleet.humanize import plural
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.slurm import scheduler
from batchfleet.slurm.job_changes import Failures, changes
from batchfleet.slurm.needed_jobs import NeededJobs
from batchfleet.slurm.run_folder import RunFolder, write
from batchfleet.slurm.scheduler import SchedulerError
from batchfleet.status.host_reports import read_hosts
from batchfleet.status.read import read_status
from batchfleet.supervisor.host_control import stop_hosts
from batchfleet.supervisor.up import grace_s
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

if TYPE_CHECKING:
    from batchfleet.slurm.controller import ControllerPlan

log = logging.getLogger(__name__)

OBSERVE_S = 1.0
LEAVE_S = 5.0
"""How long jobs may take to end once their workers have gone."""
END_S = 60.0
"""Beyond what workers may take to go: Slurm's own time to end jobs."""


class WorkerPool:
    """Of one run. While Slurm, Redis or the folder cannot be used, nothing changes."""

    def __init__(self, plan: ControllerPlan, folder: RunFolder, settings: Settings) -> None:
        self._plan = plan
        self._folder = folder
        self._address = to_options.redis_address(settings)
        self._client = connect(self._address)
        self._keys = Keys(self._address.namespace)
        self._grace_s = grace_s(settings)
        model = to_options.model_name(settings, to_options.engine_kind(settings, plan.engine))
        self._backlog = NeededJobs.of(settings, self._keys, model, plan.workers_per_job)
        self._failures = Failures(folder.failed_workers())
        self._wanted = 0
        self._observe_at = self._look_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def is_hopeless(self) -> bool:
        return self._failures.is_hopeless

    def look(self) -> None:
        """Decide again, if it is time."""
        now = time.monotonic()
        try:
            if now >= self._observe_at:
                self._observe_at = now + OBSERVE_S
                with translated(self._address):
                    before, self._wanted = self._wanted, self._backlog.wanted_jobs(self._client, now)
                if self._wanted and not before:
                    self._look_at = now
            if now >= self._look_at:
                self._look_at = now + self._plan.look_s
                self._adjust(now)
        except (FleetError, OSError) as error:
            log.warning("worker jobs stay as they are: %s", error)

    def _adjust(self, now_s: float) -> None:
        with translated(self._address):
            runs = read_status(self._client, self._keys).runs
        records = sum(run.answered + run.failed for run in runs)
        self._failures = self._failures.after(self._folder.failed_workers(), records, now_s)
        name, asked = self._folder.worker_name, self._folder.asked_workers
        jobs = scheduler.jobs(name)
        todo = changes(jobs, asked=asked, wanted=self._wanted)
        state = {"asked": asked, "wanted": self._wanted, "unanswered": self._backlog.unanswered, "records": records}
        write(self._folder.state, json.dumps({**state, "at": time.time()}))
        if todo.cancel:
            log.info("cancelling %s", plural(len(todo.cancel), "waiting worker job"))
            scheduler.cancel(todo.cancel)
        if todo.submit and now_s >= self._failures.until_s:
            job = scheduler.submit(self._folder.worker_script, name, f"--array=1-{todo.submit}")
            log.info(
                "%s queued as %s: %d of %d wanted were there, %d questions have no answer yet",
                plural(todo.submit, "worker job"), job, len(jobs), self._wanted, self._backlog.unanswered,
            )  # fmt: skip
        if todo.drain:
            log.info(
                "%s beyond the %d asked for: they finish what they hold", plural(len(todo.drain), "worker job"), asked
            )
            scheduler.cancel(todo.drain, "--batch", "--signal=USR2")

    def dismiss(self) -> None:
        """Have all worker jobs end: at once those that wait, the others when they have finished what they hold."""
        deadline = time.monotonic() + self._grace_s + END_S
        name = self._folder.worker_name
        try:
            scheduler.cancel([job.id for job in scheduler.jobs(name) if job.is_pending])
        except SchedulerError as error:
            log.warning("waiting worker jobs were not cancelled: %s", error)
        try:
            with translated(self._address):
                hosts = [host for host in read_hosts(self._client, self._keys) if host.most]
                stop_hosts(self._client, self._keys, hosts, patience_s=self._grace_s + END_S)
        except FleetError as error:
            log.warning("not all workers were told to go: %s", error)
        try:
            leave_by = time.monotonic() + LEAVE_S
            while left := [job.id for job in scheduler.jobs(name) if job.state != "COMPLETING"]:
                if time.monotonic() > leave_by:
                    # They were just starting, or Slurm queued them again: they have heard of nothing.
                    scheduler.cancel(left)
                if time.monotonic() > deadline:
                    return
                time.sleep(OBSERVE_S)
        except SchedulerError as error:
            log.warning("worker jobs may be left, named %s: %s", name, error)
