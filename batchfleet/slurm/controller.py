"""What the controller job runs: the queue, the producer, and the number of worker jobs.

It may end at any time. Its successor, which Slurm starts or it queues itself, finds everything in the folder.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.slurm import scheduler
from batchfleet.slurm.queue_server import Certificate, ServerPlan, free_port, own_host, start_server
from batchfleet.slurm.run_folder import RunFolder, write
from batchfleet.slurm.scheduler import SchedulerError
from batchfleet.slurm.worker_pool import WorkerPool
from batchfleet.supervisor.local_fleet import LocalFleet
from batchfleet.supervisor.local_plan import LocalPlan
from batchfleet.supervisor.processes import Supervised, stop_all
from wire.backoff import pause_s
from wire.errors import FleetError

log = logging.getLogger(__name__)

SUPERVISE_EVERY_S = 0.5
PRODUCER_STOP_S = 10.0
REDIS_STOP_S = 10.0
TAKE_OVER_S = 60.0
"""How long a controller waits for the one before it, which may still be ending."""
MOST_PRODUCER_FAILURES = 5
NOT_FINISHED = 3
FINAL = frozenset({0, 1})
"""Exit codes of a producer that has a record for each question."""


class TakenOverError(FleetError):
    """Another controller has the folder now."""


@dataclass(frozen=True, slots=True)
class ControllerPlan:
    """What a controller job is told.

    Attributes:
        job: Its id; empty outside of Slurm.
        restarts: How often Slurm had queued it again when it started.
        producer: What follows `batchfleet submit`.
        workers_per_job: Workers on a node.
        host: Of this machine, as others reach it; empty to find out.
        port: 0 for any.
        max_bytes: Memory that Redis may take; 0 for no limit.
        look_s: How often it looks at its jobs.
    """

    job: str
    restarts: int
    producer: tuple[str, ...]
    workers_per_job: int
    engine: str | None = None
    host: str = ""
    port: int = 0
    max_bytes: int = 0
    certificate: Certificate | None = None
    look_s: float = 15.0


class Controller:
    """One life of it."""

    def __init__(self, plan: ControllerPlan, folder: RunFolder, settings: Settings, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._folder = folder
        self._environ = environ
        host = plan.host or own_host(by_name=plan.certificate is not None)
        self._server = ServerPlan(
            folder.queue, host, plan.port or free_port(host), folder.password, plan.max_bytes, plan.certificate
        )
        settings = _with_redis(settings, f"{host}:{self._server.port}", folder.password, plan.certificate)
        # Jobs of workers come with the questions.
        model = to_options.model_name(settings, to_options.engine_kind(settings, plan.engine))
        scaled = [*settings.processing.scaled_models, model]
        processing = settings.processing.model_copy(update={"scaled_models": scaled})
        self._settings = settings.model_copy(update={"processing": processing})
        self._told_to_end = threading.Event()
        self._number = 0

    def run(self) -> int:
        """Until every question has a record, or somebody says stop; returns the producer's exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda *_: self._told_to_end.set())
        if not self._take_over():
            return 0
        try:
            code = self._serve()
        except TakenOverError as error:
            log.warning("%s", error)
            return NOT_FINISHED
        if code is None:
            self._queue_successor()
            return NOT_FINISHED
        return code

    def _take_over(self) -> bool:
        """Become the one controller; False if another one runs."""
        deadline = time.monotonic() + TAKE_OVER_S
        while True:
            number, job = self._folder.last_controller()
            if (
                job
                and job != self._plan.job
                and any(one.id == job and not one.is_pending for one in self._controllers())
            ):
                if time.monotonic() > deadline or self._told_to_end.is_set():
                    log.warning("job %s keeps the queue of %s already", job, self._folder.path)
                    return False
                time.sleep(SUPERVISE_EVERY_S)
            elif self._folder.take_over(number + 1, self._plan.job):
                self._number = number + 1
                return True

    def _controllers(self) -> Sequence[scheduler.Job]:
        return scheduler.jobs(self._folder.controller_name) if self._plan.job else ()

    def _serve(self) -> int | None:
        """Returns None if it was told to end before all was done."""
        address = to_options.redis_address(self._settings)
        server = Supervised(
            "redis-server", lambda: start_server(self._server, address), self._folder.queue / "redis.log"
        )
        try:
            write(self._folder.address, f"{self._server.host}:{self._server.port}")
            log.info("the queue is at %s", address.shown())
            plan = replace(
                LocalPlan.of(self._settings, self._environ, engine=None, workers=0),
                batchers=2,
                folder=_made(self._folder, self._plan.job),
            )
            with LocalFleet(plan) as fleet, WorkerPool(self._plan, self._folder, self._settings) as pool:
                return self._look_after(fleet, server, pool)
        finally:
            stop_all([server.process], REDIS_STOP_S)

    def _look_after(self, fleet: LocalFleet, server: Supervised, pool: WorkerPool) -> int | None:
        producer = _Producer(self._plan.producer, self._producer_environ(fleet.redis_url))
        try:
            while not self._told_to_end.wait(SUPERVISE_EVERY_S):
                if self._folder.last_controller()[0] != self._number:
                    # No mercy: what it wrote from now on would damage the other one's file.
                    server.process.kill()
                    raise TakenOverError(f"another controller has taken over {self._folder.path}")
                server.check()
                fleet.check()
                code = producer.check()
                if self._folder.is_stopping and code is None:
                    log.info("asked to stop; what has no answer yet stays in the queue")
                    code = NOT_FINISHED
                if code is None and pool.is_hopeless:
                    log.error("worker jobs fail one after the other; the last logs in %s say why", self._folder.logs)
                    code = NOT_FINISHED
                if code is not None:
                    producer.stop()
                    pool.dismiss()
                    return code
                pool.look()
        finally:
            producer.stop()
        return None

    def _producer_environ(self, redis_url: str) -> dict[str, str]:
        """Ours, with this Redis in place of any other: it reads the user's own settings file."""
        ours = {name: value for name, value in self._environ.items() if not name.startswith("BATCHFLEET_REDIS_")}
        ours |= {"BATCHFLEET_REDIS_URL": redis_url, "BATCHFLEET_REDIS_PASSWORD": self._folder.password}
        if self._plan.certificate is not None:
            ours["BATCHFLEET_REDIS_TLS_CA_FILE"] = self._plan.certificate.ca_file
        return ours

    def _queue_successor(self) -> None:
        """Have somebody continue, unless it was a person who ended this job."""
        job, folder = self._plan.job, self._folder
        if not job or folder.is_stopping:
            return
        try:
            is_running = any(one.id == job and one.state == "RUNNING" for one in self._controllers())
            is_requeued = not is_running and scheduler.is_being_requeued(job, self._plan.restarts)
            if not (is_running or is_requeued):
                return
            successor = scheduler.submit(folder.controller_script, folder.controller_name)
            log.info("ends, and job %s continues", successor)
            if is_requeued:
                # Slurm lets a job that it has queued again wait for two minutes.
                scheduler.cancel([job])
        except SchedulerError as error:
            log.warning("no successor was queued: %s", error)


class _Producer:
    """The `batchfleet submit` that reads questions and writes answers."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-P", "-m", "batchfleet", "submit", *arguments]
        self._environ = environ
        self._failures = 0
        self._again_at: float | None = None
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its progress is for the job's own log.
        return subprocess.Popen(self._command, env=self._environ, stdin=subprocess.DEVNULL)  # noqa: S603 (our own command)

    def check(self) -> int | None:
        """Its exit code once there is no use in starting it again, which continues where it stopped."""
        code = self._process.poll()
        if code is None or code in FINAL:
            return code
        if self._again_at is None:
            self._failures += 1
            if self._failures >= MOST_PRODUCER_FAILURES:
                return code if code > 0 else NOT_FINISHED
            self._again_at = time.monotonic() + pause_s(self._failures, first_s=4.0, longest_s=60.0)
            log.warning("the producer exited with %d; restarting it", code)
        elif time.monotonic() >= self._again_at:
            self._again_at = None
            self._process = self._start()
        return None

    def stop(self) -> None:
        stop_all([self._process], PRODUCER_STOP_S)


def _made(folder: RunFolder, job: str) -> Path:
    made = folder.logs / f"controller-{job or 'here'}"
    made.mkdir(mode=0o700, exist_ok=True)
    return made


def _with_redis(settings: Settings, where: str, password: str, certificate: Certificate | None) -> Settings:
    """The settings with the Redis of this controller in place of any other."""
    redis = {"url": f"redis://{where}/0", "password": SecretStr(password), "username": None}
    if certificate is not None:
        redis |= {"url": f"rediss://{where}/0", "tls_ca_file": certificate.ca_file}
    return settings.model_copy(update={"redis": settings.redis.model_copy(update=redis)})
