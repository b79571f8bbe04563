"""A fleet to be measured: a private Redis, one batcher and some workers.

Each is a process whose use of the machine can be read by itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import redis

from batchfleet.settings import to_options
from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.settings.sections.redis_server import RedisSettings
from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import last_lines, spawn, stop_all
from batchfleet.tuning.helper import BenchFailedError, Helper, config_in, environment, write_config
from wire.keys import Keys

READY_S = 60.0
STOP_S = 20.0
MOST_COMPLAINTS = 20
_COMPLAINT = re.compile(r" (WARNING|ERROR|CRITICAL) (batcher|gpu_worker|producer|wire|batchfleet)\b")


def for_bench(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """The user's settings, with what every benchmark takes for granted, and with `changes`."""
    plain = {
        "model.generator_settings.enable_batching": True,
        "processing.parallel_workers": None,
        "redis": RedisSettings(),
    }
    return with_changes(settings, {**plain, **changes})


class Rig:
    """Started by `with`; inside, every worker has registered and a batcher leads. Gone after it, processes and files.

    Args:
        settings: For all processes.
        engine: Of the workers.
        ready_s: Longest that the fleet may take to get ready, in seconds.
        profiles: Folder for the samples of batcher and workers, `NAME.json` each, written when they end; None not to
            sample.
        environs: What the environment of each worker has besides, such as the GPUs that it sees.
        simulate_in: Share the workers out among so many processes, with stubs; None for a process each.
    """

    def __init__(
        self,
        settings: Settings,
        workers: int,
        *,
        engine: str = "stub",
        ready_s: float = READY_S,
        profiles: Path | None = None,
        environs: Sequence[Mapping[str, str]] = (),
        simulate_in: int | None = None,
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._ready_s = ready_s
        self._workers = workers
        self._profiles = profiles
        self._environs = environs
        self._simulate_in = simulate_in
        # Short, for the socket; only for this user: mkdtemp sees to it.
        self.folder = Path(tempfile.mkdtemp(prefix="batchfleet-bench-"))
        self._redis = EmbeddedServer(self.folder)
        self.url = self._redis.url
        self.keys = Keys(settings.redis.namespace)
        self.client = redis.Redis.from_url(self.url, protocol=2)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self.processes.items()}

    @property
    def model(self) -> str:
        return to_options.model_name(self.settings, self._engine)

    def check(self) -> None:
        """Raises BenchFailedError if a process ended: a figure without it would be of another fleet."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                msg = f"{name} ended during the benchmark:\n{last_lines(self.folder / f'{name}.log')}"
                raise BenchFailedError(msg)

    def complaints(self) -> list[str]:
        """The last warnings and errors in the logs of the fleet: why a measurement may be off."""
        logs = [path for path in sorted(self.folder.glob("*.log")) if path.stem != "redis"]
        lines = [
            f"{path.stem}: {line}"
            for path in logs
            for line in path.read_text("utf-8", "replace").splitlines()
            if _COMPLAINT.search(line)
        ]
        return lines[-MOST_COMPLAINTS:]

    def helper(self, module: str, *arguments: str) -> Helper:
        """Start a module of this package beside the fleet; it waits for `go`."""
        return Helper(f"benchmarks.{module}", arguments, self.environ(), self.folder)

    def environ(self) -> dict[str, str]:
        return environment(self.settings) | {"BATCHFLEET_REDIS_URL": self.url}

    def stop_services(self) -> None:
        """Stop batcher and workers, in order, so that they leave what they have to say."""
        stop_all([process for name, process in reversed(self.processes.items()) if name != "redis"], STOP_S)

    def _start(self) -> None:
        self._redis.start()
        if self._redis.process is not None:
            self.processes["redis"] = self._redis.process
        write_config(self.folder, self.settings)
        self._spawn("batcher", ["batcher"])
        if self._simulate_in is not None:
            self._simulate(min(self._simulate_in, self._workers))
        else:
            for number in range(1, self._workers + 1):
                environ = self._environs[number - 1] if self._environs else {}
                self._spawn(f"worker-{number}", ["worker", "--engine", self._engine], **environ)
        self._wait_until_ready()

    def batch_by(self, size: int) -> None:
        """Have questions batched by `size` from now on.

        Another batcher does it, while the workers and their engines stay.
        """
        self.restart_batcher(BATCHFLEET_BATCH_SIZE=str(size))

    def keep_workers(self, count: int) -> None:
        """Have so many workers from now on; the others finish what they hold and go."""
        stop_all([self._last_worker() for _ in range(self._workers - count)], STOP_S)
        self._wait_until_ready()

    def kill_worker(self) -> None:
        """As the kernel does where memory is short. Nobody starts it again."""
        worker = self._last_worker()
        worker.kill()
        worker.wait()

    def _last_worker(self) -> subprocess.Popen[bytes]:
        """Counts no more."""
        worker = self.processes.pop(f"worker-{self._workers}")
        self._workers -= 1
        return worker

    def restart_batcher(self, **environ: str) -> None:
        """Have another batcher, with these settings, while the workers and their engines stay."""
        stop_all([self.processes["batcher"]], STOP_S)
        self._spawn("batcher", ["batcher"], **environ)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._ready_s
        while not self._is_ready():
            self.check()
            if time.monotonic() > deadline:
                msg = f"the fleet was not ready within {self._ready_s:.0f} s"
                raise BenchFailedError(msg)
            # Each look costs as much as there are workers.
            time.sleep(max(0.02, self._workers / 300))

    def _spawn(self, name: str, arguments: list[str], **environ: str) -> None:
        module = (
            ["batchfleet"]
            if self._profiles is None
            else ["benchmarks.profiled_main", str(self._profiles / f"{name}.json")]
        )
        command = [
            sys.executable,
            "-m",
            *module,
            *arguments,
            "--config",
            str(config_in(self.folder)),
            "--log-level",
            "warning",
        ]
        self.processes[name] = spawn(command, self.environ() | environ, self.folder / f"{name}.log")

    def _simulate(self, processes: int) -> None:
        for number in range(processes):
            share = self._workers // processes + (number < self._workers % processes)
            command = [
                sys.executable,
                "-m",
                "benchmarks.simulated_workers",
                str(share),
                "--config",
                str(config_in(self.folder)),
            ]
            name = f"worker-{number + 1}"
            self.processes[name] = spawn(command, self.environ(), self.folder / f"{name}.log")

    def _is_ready(self) -> bool:
        status = read_status(self.client, self.keys)
        running = [worker for worker in status.workers if worker.state == "running"]
        return len(running) == self._workers and any(batcher.state == "leading" for batcher in status.batchers)

    def _stop(self) -> None:
        self.client.close()
        self.stop_services()
        stop_all([process for name, process in self.processes.items() if name == "redis"], STOP_S)
        shutil.rmtree(self.folder, ignore_errors=True)
