"""An answer may take half an hour: as long as the engine moves, its worker keeps it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, read_answers, write_questions

STEP_S = 0.05


@pytest.fixture
def load() -> Iterator[None]:
    """Somebody else who computes on the same machine."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


# 30 minutes are 300 of the default leases of 6 s. The short one is for every day; scripts/test -m slow runs the long
# one.
@pytest.mark.parametrize(
    ("lease_s", "leases"), [(5.0, 4), pytest.param(1.0, 300, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.usefixtures("load")
def test_a_generation_of_many_leases_is_never_taken_over(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis, lease_s: float, leases: int
) -> None:
    """Under load, and stopped again and again for less than the lease.

    No batch is taken from a worker whose engine makes progress.
    """
    write_questions(tmp_path / "questions.jsonl", 12)
    tokens = str(int(leases * lease_s / STEP_S))
    environ = {
        "BATCHFLEET_LEASES_BATCH_S": str(lease_s),
        "BATCHFLEET_LEASES_LEADER_S": "15",
        "BATCHFLEET_LEASES_HEARTBEAT_S": str(lease_s / 10),
        "BATCHFLEET_LEASES_STALL_S": str(6 * lease_s),
        "BATCHFLEET_STUB_STEP_S": str(STEP_S),
        "BATCHFLEET_STUB_MIN_TOKENS": tokens,
        "BATCHFLEET_STUB_MAX_TOKENS": tokens,
        "BATCHFLEET_MAX_TOKENS": tokens,
    }
    chance = random.Random(5)  # noqa: S311 (the same stops every time)
    with Processes(redis_server.url, tmp_path, environ) as fleet:
        fleet.batcher()
        fleet.worker("one")
        fleet.worker("two")
        producer = fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "long")
        while producer.poll() is None:
            worker = fleet.started[chance.choice(["one", "two"])]
            worker.send_signal(signal.SIGSTOP)
            # With a heartbeat before it and one after it, still within the lease.
            time.sleep(chance.uniform(0.1, lease_s / 4))
            worker.send_signal(signal.SIGCONT)
            time.sleep(chance.uniform(0.3, 1.0))
        assert producer.returncode == 0
        assert "stopped making progress" not in fleet.log("batcher")
    answers = read_answers(tmp_path / "answers.jsonl")
    assert [line["attempts"] for line in answers] == [1] * 12
    assert min(line["latency_s"] for line in answers) >= leases * lease_s
    assert client.hget("batchfleet:run:long", "regenerated") == b"0"
