"""A whole fleet on this machine, supervised.

It consists of a private Redis if none is given, batchers, and workers, each a process of its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from batchfleet.status.workers import WorkerSnapshot, see_workers
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.local_plan import STOP_S, LocalPlan, scratch_folder
from batchfleet.supervisor.processes import ChildGaveUpError, Supervised, keep_short, send_sigterm, spawn, stop_all
from batchfleet.supervisor.scale_down_order import first_to_go, usefulness
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import QueueUnavailableError
from wire.keys import Keys

log = logging.getLogger(__name__)

CHILD_POLL_S = 0.05
LOG_BYTES = 16 * 1024 * 1024
"""A process's log that grows beyond this begins anew, and the one before is kept."""


class LocalFleet:
    """Started by `with`, and gone after it; its files too, unless the plan names a folder.

    Attributes:
        lost: Workers that were given up, or drained by hand: nobody starts others in their place unasked.
    """

    def __init__(self, plan: LocalPlan) -> None:
        self._plan = plan
        self.folder = plan.folder or scratch_folder(for_socket=plan.redis_url is None)
        self._redis: EmbeddedServer | None = None
        self._services: list[Supervised] = []
        self._workers: dict[int, Supervised] = {}
        self._leaving: dict[int, _Leaving] = {}
        self.lost = 0
        self._has_served = False
        self.redis_url = plan.redis_url or ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Ctrl-C twice, or while the engine boots: nobody waits for anything.
        self._stop(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))

    def check(self) -> None:
        """Start again what ended, and see off those that were told to go.

        A worker that cannot continue is given up by itself once the fleet has served, as long as there is another.

        One that was told by somebody else to finish and end, such as by `drain`, is not started again.

        Raises:
            ChildGaveUpError: Something keeps ending that the fleet cannot do without, with its last words; or the last
                worker of a fleet that nobody can scale was drained.
        """
        for service in self._services:
            service.check()
        for number, worker in list(self._workers.items()):
            if worker.process.poll() == 0:
                # Nobody here told it to; but it was told, by `drain` or by a signal, and did as it should.
                self._let_go(number)
                continue
            try:
                worker.check()
            except ChildGaveUpError as error:
                if not self._has_served or len(self._workers) == 1:
                    raise
                log.error("continuing without %s", error)  # noqa: TRY400 (the message has its last words)
                del self._workers[number]
                self.lost += 1
        self._reap_leaving()
        for child in (*self._services, *self._workers.values()):
            keep_short(child.log_file, LOG_BYTES)

    def scale(self, count: int, seen: Mapping[int, WorkerSnapshot], *, only_idle: bool = False) -> None:
        """Have `count` workers from now on: start some, or let some go, which then finish what they hold.

        Args:
            seen: What is known of the workers, by process id.
            only_idle: Let none go that holds work or is not among `seen`, even if more than `count` stay.
        """
        while len(self._workers) < count:
            number = next(
                number
                for number in range(1, count + len(self._leaving) + 1)
                if number not in {*self._workers, *self._leaving}
            )
            log.info("starting worker-%d", number)
            self._workers[number] = self._supervise(
                f"worker-{number}", ["worker", *(["--engine", self._plan.engine] if self._plan.engine else [])]
            )
        ranks = {
            number: usefulness(seen.get(worker.process.pid), is_running=worker.process.poll() is None)
            for number, worker in self._workers.items()
        }
        for number in first_to_go(ranks, len(self._workers) - count, only_idle=only_idle):
            log.info("worker-%d finishes what it holds and exits", number)
            process = self._workers.pop(number).process
            process.terminate()
            self._leaving[number] = _Leaving(process, time.monotonic() + self._plan.grace_s)

    def _let_go(self, number: int) -> None:
        del self._workers[number]
        self.lost += 1
        log.info("worker-%d was drained and has exited", number)
        if not self._workers and self._plan.folder is None:
            raise ChildGaveUpError("the last worker was drained, so nothing is answered any more")

    def send_sigterm(self) -> None:
        """Have the workers that were told to go give back at once what they hold.

        May be called from a signal handler.
        """
        for process in self._worker_processes():
            process.terminate()

    def has_served(self) -> None:
        """Take note that it works: from now on one worker's trouble is not the fleet's."""
        self._has_served = True

    @property
    def pids(self) -> frozenset[int]:
        """Of all workers that live, those on their way out included."""
        return frozenset(process.pid for process in self._worker_processes() if process.poll() is None)

    @property
    def workers(self) -> int:
        """How many there are to be, those that are just being restarted included."""
        return len(self._workers)

    @property
    def leaving(self) -> int:
        return len(self._leaving)

    def wait_until_serving(
        self, address: RedisAddress, show: Callable[[str], None], go_on: Callable[[], None] = lambda: None
    ) -> None:
        """Return when the first worker takes work.

        Nothing has been submitted until then: an engine that cannot boot costs no question.

        Args:
            address: Of this fleet's Redis.
            show: Called often with what is going on, in words.
            go_on: Called often; raises if it is not to continue.

        Raises:
            ChildGaveUpError: The engine cannot boot; with its last words.
        """
        began = time.monotonic()
        keys = Keys(address.namespace)
        with connect(address) as client:
            while True:
                self.check()
                go_on()
                states = self._states(client, keys)
                if "running" in states or "waiting" in states:
                    self.has_served()
                    return
                waits_for = next((reason for reason in states.values() if reason), "")
                doing = (
                    f"{'standby' if 'standby' in states else 'waiting'}: {waits_for}"
                    if waits_for
                    else f"the {self._plan.engine} engine boots"
                )
                show(f"{doing} ({time.monotonic() - began:.0f} s)")
                time.sleep(CHILD_POLL_S)

    def _states(self, client: redis.Redis, keys: Keys) -> dict[str, str]:
        """In which states workers are, and what those in standby wait for. Redis away: none; it is being restarted."""
        try:
            return {worker.state: worker.waits_for for worker in see_workers(client, keys)}
        except redis.ResponseError:
            # Something else is where reports belong; the batcher moves it aside.
            return {}
        except (redis.RedisError, OSError) as error:
            if self._redis is None:
                raise QueueUnavailableError(
                    f"Redis at {self.redis_url.rpartition('@')[2]} does not answer: {error}"
                ) from error
            return {}

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in (*self._services, *self._workers.values()))

    def _start(self) -> None:
        plan = self._plan
        if plan.redis_url is None:
            self._redis = EmbeddedServer(self.folder)
            self.redis_url = self._redis.url
            self._services.append(Supervised("redis-server", self._start_redis, self.folder / "redis.log"))
        (self.folder / "fleet.yaml").write_text(plan.config, encoding="utf-8")
        for number in range(1, plan.batchers + 1):
            self._services.append(self._supervise(f"batcher-{number}", ["batcher"]))
        self.scale(plan.workers, {})

    def _start_redis(self) -> subprocess.Popen[bytes]:
        if self._redis is None:
            raise ChildGaveUpError("there is no private redis-server")
        self._redis.start()
        if self._redis.process is None:
            raise ChildGaveUpError("the private redis-server did not start")
        return self._redis.process

    def _supervise(self, name: str, arguments: list[str]) -> Supervised:
        log_file = self.folder / f"{name}.log"
        config = str(self.folder / "fleet.yaml")
        command = [sys.executable, "-m", "batchfleet", *arguments, "--config", config]
        command += ["--log-level", self._plan.log_level, "--log-format", self._plan.log_format]
        env = {**self._plan.environ, "BATCHFLEET_REDIS_URL": self.redis_url}
        # The packages may lie in a tree on PYTHONPATH instead of being installed.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), env.get("PYTHONPATH", "")]))
        return Supervised(name, lambda: spawn(command, env, log_file), log_file)

    def _worker_processes(self) -> list[subprocess.Popen[bytes]]:
        return [
            *(worker.process for worker in self._workers.values()),
            *(leaving.process for leaving in self._leaving.values()),
        ]

    def _reap_leaving(self) -> None:
        for number, leaving in list(self._leaving.items()):
            if leaving.process.poll() is None and time.monotonic() >= leaving.until:
                log.warning("worker-%d did not end within %.0f s and is killed", number, self._plan.grace_s)
                leaving.process.kill()
                leaving.process.wait()
            if leaving.process.poll() is not None:
                log.info("worker-%d has gone", number)
                del self._leaving[number]

    def _stop(self, *, at_once: bool = False) -> None:
        batchers = [service.process for service in self._services if service.name != "redis-server"]
        redis_servers = [service.process for service in self._services if service.name == "redis-server"]
        programs = [*self._worker_processes(), *reversed(batchers)]
        at_once = at_once and self._plan.folder is None
        try:
            if self._plan.folder is None and self._redis is not None and not at_once:
                # Their queue ends with them: nobody could fetch what they would still finish, and a second signal has
                # them give it up.
                send_sigterm(programs)
            # Workers give back what they hold, for which they need Redis.
            stop_all(programs, 0 if at_once else self._plan.grace_s)
        finally:
            stop_all(redis_servers, 0 if at_once else STOP_S)
            if self._plan.folder is None:
                shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A worker that was told to go, and when that must have happened."""

    process: subprocess.Popen[bytes]
    until: float
