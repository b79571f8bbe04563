"""A whole fleet on this machine: a private Redis if none is given, one batcher, and workers, each a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from fleet.private_redis import PrivateRedis
from fleet.processes import ChildGaveUpError, Supervised, spawn, stop_all
from wire.connection import RedisAddress, connect
from wire.errors import QueueUnavailableError
from wire.keys import Keys

STOP_S = 10.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What is to be started.

    Attributes:
        engine: `stub`, `vllm` or `openai`.
        workers, batchers: How many of each.
        redis_url: None for a private Redis.
        config: Text of the configuration that all processes get, without secrets.
        environ: Environment of all processes; secrets travel here and nowhere else.
        log_level: For the processes' logs.
    """

    engine: str
    workers: int
    batchers: int
    redis_url: str | None
    config: str
    environ: Mapping[str, str]
    log_level: str = "info"


class LocalFleet:
    """Started by `with`, and gone after it, processes and files."""

    def __init__(self, plan: LocalPlan) -> None:
        self._plan = plan
        # Short, for the socket; only for this user: mkdtemp sees to it.
        self.folder = Path(tempfile.mkdtemp(prefix="batchfleet-"))
        self._redis: PrivateRedis | None = None
        self._supervised: list[Supervised] = []
        self.redis_url = plan.redis_url or ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()

    def check(self) -> None:
        """Start again what ended.

        Raises:
            ChildGaveUpError: Something keeps ending; with its last words.
        """
        for child in self._supervised:
            child.check()

    def wait_until_serving(self, address: RedisAddress, show: Callable[[str], None]) -> None:
        """Return when the first worker takes work. Nothing has been submitted until then: an engine that cannot boot costs no question.

        Args:
            address: Of this fleet's Redis.
            show: Called often with what is going on, in words.

        Raises:
            ChildGaveUpError: The engine cannot boot; with its last words.
        """
        began = time.monotonic()
        keys = Keys(address.namespace)
        with connect(address) as client:
            while True:
                self.check()
                states = self._states(client, keys)
                if "running" in states:
                    return
                waits_for = next((reason for state, reason in states.items() if state == "standby"), "")
                doing = f"standby: {waits_for}" if waits_for else f"the {self._plan.engine} engine boots"
                show(f"{doing} ({time.monotonic() - began:.0f} s)")
                time.sleep(LOOK_S)

    def _states(self, client: redis.Redis, keys: Keys) -> dict[str, str]:
        """In which states workers are, and what those in standby wait for. Redis away: none; it is being started again."""
        try:
            names: Any = client.zrange(keys.workers, 0, -1)
            reports: Any = [client.hmget(keys.worker(name.decode()), "state", "waits_for") for name in names]
        except (redis.RedisError, OSError) as error:
            if self._redis is None:
                msg = f"Redis at {self.redis_url.rpartition('@')[2]} does not answer: {error}"
                raise QueueUnavailableError(msg) from error
            return {}
        return {state.decode(): (waits_for or b"").decode() for state, waits_for in reports if state}

    @property
    def restarts(self) -> int:
        return sum(child.restarts for child in self._supervised)

    def _start(self) -> None:
        plan = self._plan
        if plan.redis_url is None:
            self._redis = PrivateRedis(self.folder)
            self.redis_url = self._redis.url
            self._supervised.append(Supervised("redis-server", self._start_redis, self.folder / "redis.log"))
        (self.folder / "fleet.yaml").write_text(plan.config, encoding="utf-8")
        for number in range(1, plan.batchers + 1):
            self._supervise(f"batcher-{number}", ["batcher"])
        for number in range(1, plan.workers + 1):
            self._supervise(f"worker-{number}", ["worker", "--engine", plan.engine])

    def _start_redis(self) -> subprocess.Popen[bytes]:
        if self._redis is None:
            msg = "there is no private redis-server"
            raise ChildGaveUpError(msg)
        self._redis.start()
        if self._redis.process is None:
            msg = "the private redis-server did not start"
            raise ChildGaveUpError(msg)
        return self._redis.process

    def _supervise(self, name: str, arguments: list[str]) -> None:
        log_file = self.folder / f"{name}.log"
        config = str(self.folder / "fleet.yaml")
        command = [sys.executable, "-m", "fleet", *arguments, "--config", config, "--log-level", self._plan.log_level]
        env = {**self._plan.environ, "BATCHFLEET_REDIS_URL": self.redis_url}
        # The packages may lie in a tree on PYTHONPATH instead of being installed.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), env.get("PYTHONPATH", "")]))
        self._supervised.append(Supervised(name, lambda: spawn(command, env, log_file), log_file))

    def _stop(self) -> None:
        redis = [child.process for child in self._supervised if child.name == "redis-server"]
        # Workers give back what they hold, for which they need Redis.
        stop_all([child.process for child in reversed(self._supervised) if child.name != "redis-server"], STOP_S)
        stop_all(redis, STOP_S)
        shutil.rmtree(self.folder, ignore_errors=True)
