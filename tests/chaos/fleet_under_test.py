"""The fleet of one schedule: real processes, and a supervisor that restarts what exited.

Each process has its own link to a real Redis.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.chaos.network import Network, network_of
from tests.chaos.nursery import Child, Life, Nursery
from tests.chaos.schedule import BATCHERS, LASTING, PRODUCERS, REDIS, UPS, WORKERS, Schedule
from tests.processes import PATIENCE_S, write_questions
from tests.redis_servers import server_version

MODEL = "stub"
MIN_TOKENS, MAX_TOKENS = 5, 40
STEP_S = 0.02
RESTART_AFTER_S = 0.3
DEADLINE_S = 50
"""Less than the wrong clock is wrong by: a fleet that believed it would let questions expire."""
MOST_REFUSALS = 3
"""A producer that refuses to continue this often for no fault of the schedule will do so for ever."""
REFUSED = 2
"""Exit code of a producer whose run is one of something else."""
GRACE_S = 15.0
APPEND_ONLY = ("appendonlydir", "appendonly.aof")
"""Where servers keep their append-only file, newer ones and Redis 6.2."""

Process = Child | subprocess.Popen[bytes]


@dataclass
class Member:
    """One process of the fleet, through all its lives.

    Attributes:
        down: A fault holds it down; it is not to be started.
        doomed: A fault made it end, or will.
        ended: It has done its work.
        surprises: How it ended without a fault that explains it.
    """

    name: str
    start: Callable[[], Process]
    process: Process | None = None
    down: bool = False
    doomed: bool = False
    ended: bool = False
    start_at: float = 0.0
    surprises: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """None if it does not run now."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def supervise(self) -> None:
        """Start it if it should run and does not."""
        if self.ended or self.pid is not None:
            return
        if self.process is not None:
            self._bury(self.process)
        if not self.down and not self.ended and time.monotonic() >= self.start_at:
            self.process = self.start()

    def _bury(self, process: Process) -> None:
        code = process.returncode
        if self.name in PRODUCERS and code in {0, 1}:
            self.ended = True
        # A producer that finds Redis away when it starts says so and ends; whoever started it tries again.
        elif not self.doomed and (self.name not in PRODUCERS or code not in {3, 130}):
            self.surprises.append(f"{self.name} ended with code {code}, and no fault explains it")
        self.ended = self.ended or (self.name in PRODUCERS and len(self.surprises) >= MOST_REFUSALS)
        self.process, self.doomed = None, False
        self.start_at = time.monotonic() + (0.0 if self.name in REDIS else RESTART_AFTER_S)


class PlacedRedis(EmbeddedServer):
    """The Redis of the fleet, where its network wants it; its socket is there as well, for whoever looks on."""

    def place(self, network: Network) -> None:
        # Redis 6.2 has no such option, and takes DEBUG from everybody.
        if " v=6." not in server_version():
            self._command += ["--enable-debug-command", "yes"]
        self._command = network.around_redis(self._command)

    def copy_data(self) -> None:
        """Keep what is in the append-only file now."""
        shutil.rmtree(self._folder / "copy", ignore_errors=True)
        (self._folder / "copy").mkdir()
        for name in APPEND_ONLY:
            found = self._folder / name
            if found.is_dir():
                shutil.copytree(found, self._folder / "copy" / name)
            elif found.exists():
                shutil.copy(found, self._folder / "copy" / name)

    def use_copy(self) -> None:
        """Put that in the place of what there is; the server must not run."""
        for name in APPEND_ONLY:
            found, copied = self._folder / name, self._folder / "copy" / name
            if copied.exists():
                shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
                copied.rename(found)


class FleetUnderTest:
    """Used in a `with` statement, at whose end everything is gone but the files in `folder`.

    Args:
        network: Which kind: one of `NETWORKS`.
    """

    def __init__(self, schedule: Schedule, folder: Path, network: str) -> None:
        self.folder = folder
        self.schedule = schedule
        self.server = PlacedRedis(folder)
        self._nursery = Nursery()
        self.network = network_of(network, folder / "redis.sock", (*WORKERS, *BATCHERS, *PRODUCERS, *UPS))
        self.ids = {
            name: write_questions(self.questions(name), schedule.pace.questions, prefix=f"{name}-q")
            for name in PRODUCERS
        }
        self._add_deadlines(self.questions(PRODUCERS[1]))
        self.ups = [name for name in UPS if any(fault.target == name for fault in schedule.faults)]
        self.members = {
            name: Member(name, self._starter(name)) for name in (*REDIS, *WORKERS, *BATCHERS, *PRODUCERS, *self.ups)
        }
        self.forgotten: set[str] = set()
        self.asked = 0
        self.rolled_back = False
        self.is_memory_to_be_freed = False
        # Redis may be stopped or gone at any time: never wait for it for long.
        self._client = redis.Redis.from_url(self.server.url, protocol=2, socket_timeout=0.25)

    def __enter__(self) -> Self:
        # First, as the network may be a thread.
        self._nursery.__enter__()
        self.network.__enter__()
        self.server.place(self.network)
        try:
            for name in (*REDIS, *BATCHERS, *WORKERS):
                self.members[name].supervise()
            self._wait_for(
                lambda: self.ask(lambda client: client.zcard("batchfleet:workers")) == len(WORKERS), "all workers"
            )
            for name in (*PRODUCERS, *self.ups):
                self.members[name].supervise()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_all()

    def questions(self, name: str) -> Path:
        """The file that a producer reads."""
        return self.folder / f"{name}-questions.jsonl"

    def answers(self, name: str) -> Path:
        """The file that a producer writes."""
        return self.folder / f"{name}-answers.jsonl"

    def log(self, name: str) -> Path:
        """The output of all lives of a process."""
        return self.folder / f"{name}.log"

    def ask(self, what: Callable[[redis.Redis], Any]) -> Any:  # noqa: ANN401 (whatever the caller asks for)
        """Ask Redis directly, past all links; None if it does not answer now."""
        with contextlib.suppress(redis.RedisError, OSError):
            return what(self._client)
        return None

    def ask_others(self, producer: str) -> None:
        """Have a producer ask other questions with the same ids, into a file of their own. It must not run."""
        self.asked += 1
        for path in (self.answers(producer), self.answers(producer).with_name(f"{self.answers(producer).name}.run")):
            path.unlink(missing_ok=True)
        text = self.questions(producer).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        other = [{**line, "question": f"{line['question']} Again, for time {self.asked}."} for line in lines]
        self.questions(producer).write_text("".join(f"{json.dumps(line)}\n" for line in other), encoding="utf-8")

    def scale(self, workers: int) -> bool:
        """Ask `up` for that many workers; returns whether it was heard."""
        words = ("scale", str(workers))
        return bool(self.ups) and self.command(*words, name="scale")[0] == 0

    def supervise(self) -> None:
        """Start again what ended, as far as no fault holds it down."""
        if self.is_memory_to_be_freed:
            self.is_memory_to_be_freed = not self.ask(lambda client: client.config_set("maxmemory", 0))
        for name in self.forgotten if self.rolled_back else ():
            process, log = self.members[name].process, self.log(name)
            if process is not None and process.poll() == REFUSED and "made of something else" in log.read_text():
                # Redis has lost that the run was forgotten, and the producer says so: whoever reads it does it again.
                self.members[name].doomed = True
                self.command("forget", name, name="forget")
        for member in self.members.values():
            member.supervise()

    @property
    def written_bytes(self) -> int:
        """Of all answers so far: it changes as long as the fleet gets on."""
        files = [self.answers(name) for name in PRODUCERS]
        return sum(file.stat().st_size for file in files if file.exists())

    def done(self) -> bool:
        """Whether both producers have ended for good."""
        return all(self.members[name].ended for name in PRODUCERS)

    def leave(self) -> list[str]:
        """Ask everything but Redis to end, as an operator would.

        Returns:
            What did not end, or not with code 0.
        """
        leaving = [
            member for member in self.members.values() if member.name not in REDIS and member.process is not None
        ]
        for member in leaving:
            # One that a fault has killed, and that nobody has started since, is not to end with code 0.
            if member.pid is None and member.doomed:
                member.process = None
            member.down = member.doomed = True
        processes = {member.name: member.process for member in leaving if member.process is not None}
        for process in processes.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # Its log then says where it hung: the nursery enables faulthandler.
                process.send_signal(signal.SIGABRT)
                process.wait()
        codes = {name: process.returncode for name, process in processes.items()}
        # Before a program serves, SIGTERM ends it as it ends any other.
        return [
            f"{name} ended with code {code} after SIGTERM"
            for name, code in codes.items()
            if code not in {0, -signal.SIGTERM}
        ]

    def command(self, *arguments: str, name: str) -> tuple[int, str]:
        """Run one command to its end, as a user would, past all links.

        Returns:
            Its exit code and what it said.
        """
        self.log(name).unlink(missing_ok=True)
        code = self._nursery.start(
            Life([*arguments, "--redis", self.server.url], self._environ_of_all(), self.log(name))
        ).wait(GRACE_S)
        return code, self.log(name).read_text(encoding="utf-8")

    def _starter(self, name: str) -> Callable[[], Process]:
        if name in REDIS:
            return self._start_redis
        if name in WORKERS:
            arguments = ["worker", "--engine", "stub"]
        elif name in BATCHERS:
            arguments = ["batcher"]
        elif name in UPS:
            arguments = [
                "up",
                "--engine",
                "stub",
                "--workers",
                "1",
                "--batchers",
                "1",
                "--state",
                str(self.folder / "up"),
            ]
        else:
            paths = [str(self.questions(name)), "-o", str(self.answers(name))]
            arguments = ["submit", *paths, "--model", MODEL, "--run", name, "--quiet", "--json"]
        wrong = next(
            (float(fault.variant) for fault in self.schedule.faults if fault.kind == LASTING and fault.target == name),
            0.0,
        )
        return lambda: self._nursery.start(
            Life(arguments, self._environ(name), self.log(name), wrong, self.network.place(name))
        )

    def _start_redis(self) -> subprocess.Popen[bytes]:
        self.server.start()
        assert self.server.process is not None
        return self.server.process

    def _environ(self, name: str) -> Mapping[str, str]:
        schedule, pace = self.schedule, self.schedule.pace
        settings = {
            "REDIS_URL": self.network.url(name), "REDIS_SOCKET_TIMEOUT_S": 1,
            "LEASES_BATCH_S": pace.batch_s, "LEASES_LEADER_S": pace.leader_s,
            "LEASES_HEARTBEAT_S": pace.heartbeat_s, "LEASES_DRAIN_S": 0.7,
            "STUB_STEP_S": STEP_S, "STUB_MIN_TOKENS": MIN_TOKENS, "STUB_MAX_TOKENS": MAX_TOKENS,
            "STUB_MAX_NUM_SEQS": schedule.capacity, "BATCH_SIZE": schedule.batch_size, "BATCH_TIMEOUT": 0.1,
            "LIMITS_MAX_WAITING_BATCHES": schedule.max_waiting_batches, "LIMITS_RUN_WINDOW": 64,
        }  # fmt: skip
        return {**self._environ_of_all(), **{f"BATCHFLEET_{key}": str(value) for key, value in settings.items()}}

    @staticmethod
    def _environ_of_all() -> dict[str, str]:
        """What a program finds in its environment beside its settings: nothing of whoever runs the tests."""
        return {name: value for name, value in os.environ.items() if not name.startswith("BATCHFLEET_")}

    @staticmethod
    def _add_deadlines(questions: Path) -> None:
        text = questions.read_text(encoding="utf-8")
        questions.write_text(text.replace("}\n", f', "deadline_s": {DEADLINE_S}}}\n'), encoding="utf-8")

    def _wait_for(self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s; logs are in {self.folder}"
            self.supervise()
            time.sleep(0.02)

    def _stop_all(self) -> None:
        processes = [member.process for member in self.members.values() if member.process is not None]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in processes:
            process.wait()
        self._client.close()
        self.network.__exit__(None, None, None)
        self._nursery.__exit__(None, None, None)
