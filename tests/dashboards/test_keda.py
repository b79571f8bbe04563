"""The rule of deploy/kubernetes on a real Prometheus and a real fleet, whose `batchfleet scale` it drives.

KEDA and the autoscaler are played by `tests.keda`, on a clock 60 times as fast: a poll each quarter of a second.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from batchfleet.status.read import read_status
from batchfleet.status.workers import see_workers
from tests.dashboards.prometheus import FOLDER, Prometheus, figures
from tests.keda import SYNC_S, KedaRule, scaled_object
from tests.long_running import Home, up
from tests.processes import Processes, read_answers, wait_until
from tests.submissions import KEYS
from wire.address import RedisAddress
from wire.connection import connect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="PROMETHEUS_FOLDER names no folder of Prometheus: see scripts/test-gateway"),
]
FASTER = 60
MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
LABELS = {"namespace": "batchfleet", "app_kubernetes_io_instance": "batchfleet"}
"""What the PodMonitor adds."""
STUB = {"STUB_STEP_S": "0.01", "STUB_MIN_TOKENS": "1000", "STUB_MAX_TOKENS": "1000", "LEASES_BATCH_S": "100"}


@dataclass
class Driver:
    """Looks as KEDA does, and does what it says with `batchfleet scale`.

    Attributes:
        steps: What was asked for, in turn.
        unanswered: At each step down, by the fleet's own count.
        failed: What `scale` said where it failed.
    """

    rule: KedaRule
    prometheus: Prometheus
    home: Home
    client: redis.Redis
    steps: list[int] = field(default_factory=lambda: [0])
    unanswered: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def drive(self, done: threading.Event) -> None:
        """Until it is told to stop."""
        while not done.wait(SYNC_S / FASTER):
            found = figures(self.prometheus.ask(self.rule.trigger["query"]))
            assert len(found) <= 1, "KEDA refuses several values"
            now_s = FASTER * time.monotonic()
            self.rule.poll(next(iter(found), None), now_s)
            self.rule.sync(next(iter(found), None), now_s)
            if self.rule.replicas != self.steps[-1]:
                self._scale(self.rule.replicas)

    def _scale(self, workers: int) -> None:
        if workers < self.steps[-1]:
            self.unanswered.append(read_status(self.client, KEYS).pending_questions)
        self.steps.append(workers)
        scaled = self.home.scale(workers)
        self.failed += [scaled.stderr] if scaled.returncode else []


def write(path: Path, short: int, long: int) -> list[str]:
    """So many questions of 20 tokens, and of 1 000, on which the stub writes for ten seconds, twice the idle time."""
    lines = [
        {"id": f"{path.stem}-{number}", "question": f"Question {number}", "params": {"max_tokens": most}}
        for number, most in enumerate([1000] * long + [20] * short)
    ]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return [str(line["id"]) for line in lines]


def test_the_scaled_object_drives_a_real_fleet_from_zero_and_back(tmp_path: Path) -> None:
    """A burst with a long tail, nothing, and a single question: up, down only to none, and only with nothing left."""
    home = Home(Path(tempfile.mkdtemp(prefix="bf-keda-")))  # The path of a socket has to be short.
    rule = KedaRule(scaled_object())
    assert f'model="{MODEL}"' in rule.trigger["query"]
    with (
        Processes(home.url, tmp_path, {"BATCHFLEET_METRICS_PORT": "0"}) as machine,
        connect(RedisAddress(home.url)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        up(machine, home, "--workers", "0", "--model", MODEL, **STUB)
        wait_until(lambda: "up with Redis" in machine.log("up"), "the fleet is up")
        wait_until(lambda: len(metrics_of(client)) == 2, "both batchers can be scraped")
        prometheus = Prometheus(tmp_path, metrics_of(client), LABELS)
        driver, done = Driver(rule, prometheus, home, client), threading.Event()
        driving = pool.submit(driver.drive, done)
        try:
            for name, short, long in (("burst", 4500, 3), ("single", 1, 0)):
                questions, answers = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out"
                ids = write(questions, short, long)
                machine.start(name, "submit", str(questions), "-o", str(answers), "--model", MODEL)
                assert machine.finish(name) == 0
                lines: list[dict[str, Any]] = read_answers(answers)
                assert Counter(line["id"] for line in lines) == Counter(ids)
                assert {line["attempts"] for line in lines} == {1}
                wait_until(lambda: driver.steps[-1] == 0 or driving.done(), "it is at zero again")
                wait_until(lambda: not see_workers(client, KEYS) or driving.done(), "all workers have gone")
        finally:
            done.set()
            driving.result()
            prometheus.stop()
    assert driver.failed == []
    assert driver.unanswered == [0, 0]
    assert [after for before, after in itertools.pairwise(driver.steps) if after < before] == [0, 0]
    assert max(driver.steps) == 3
    shutil.rmtree(home.folder)


def metrics_of(client: redis.Redis) -> list[str]:
    """Where the batchers can be scraped."""
    return [batcher.metrics for batcher in read_status(client, KEYS).batchers if batcher.metrics]
