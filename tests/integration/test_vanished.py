"""A host that vanishes is named: which, since when, and what it held, until it is back or a day has passed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import redis

from batcher.maintenance.vanished import MOST_KEPT, Vanished
from batchfleet.cli.main import main
from batchfleet.status.advice import vanished_hosts
from batchfleet.status.by_host import by_host
from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.host_control import HostReporter
from tests.submissions import KEYS, Submitter

HEARTBEAT_S = 60.0
SILENT_S = 400.0
"""More than five heartbeats, less than ten, however slow this machine is."""


def report(client: redis.Redis, name: str, ago_s: float, in_flight: int = 0) -> None:
    """A worker's, of so many seconds ago."""
    now: Any = client.time()
    client.zadd(KEYS.workers, {name: (now[0] - ago_s) * 1000})
    said = {"state": "running", "model": "stub", "in_flight": str(in_flight), "gpus": "GPU-1,GPU-2", "capacity": "96"}
    client.hset(KEYS.worker(name), items=[part for pair in said.items() for part in pair])


def test_a_host_of_which_nothing_reports_any_more_is_named_until_it_is_back(client: redis.Redis) -> None:
    """With what it held; a worker that died on a host that lives is no such host."""
    report(client, "gpu-07-aa", SILENT_S, 60)
    report(client, "gpu-07-bb", SILENT_S, 4)
    report(client, "gpu-08-aa", SILENT_S, 64)
    report(client, "gpu-08-cc", 0.0, 64)
    watch = Vanished(client, KEYS, heartbeat_s=HEARTBEAT_S)

    watch.look()
    status = read_status(client, KEYS)
    (said,) = vanished_hosts(status)

    assert "1 host stopped reporting: gpu-07 6 min" in said
    assert "2 workers with 64 questions in flight and 4 GPUs" in said
    assert [worker.name for worker in status.workers] == ["gpu-08-cc"]
    report(client, "gpu-07-aa", 0.0, 60)
    assert list(vanished_hosts(read_status(client, KEYS))) == [], "before the batcher looks again"
    # Another batcher leads by now.
    Vanished(client, KEYS, heartbeat_s=HEARTBEAT_S).look()
    assert not client.hexists(KEYS.vanished, "gpu-07-aa")


def test_an_up_without_workers_vanishes_too(client: redis.Redis) -> None:
    """Who keeps batchers, or scales to zero, holds nothing and is missed all the same; who takes leave is not."""
    for name, leaves in (("lost", False), ("left", True)):
        host = HostReporter(client, KEYS, HEARTBEAT_S)
        host.name = f"{name}-0123"
        host.report({"workers": 0})
        if leaves:
            host.leave()
    client.zincrby(KEYS.hosts, -1000 * SILENT_S, "lost-0123")

    Vanished(client, KEYS, heartbeat_s=HEARTBEAT_S).look()

    (one,) = [host for host in by_host(read_status(client, KEYS)) if host.has_vanished]
    assert (one.name, one.held()) == ("lost", "no worker")


def test_what_is_kept_of_them_is_bounded_and_ends(client: redis.Redis) -> None:
    """A cluster that preempts loses thousands; the latest are kept."""
    client.hset(KEYS.vanished, "old-1", json.dumps({"kind": "worker", "at": time.time() - 1e6}))
    client.hset(KEYS.vanished, "odd", "[")
    for number in range(MOST_KEPT + 5):
        report(client, f"host{number:03}-a", SILENT_S + (MOST_KEPT - number) / 10)
    watch = Vanished(client, KEYS, heartbeat_s=HEARTBEAT_S)
    watch.look()

    kept = {one.name for one in read_status(client, KEYS).vanished}

    assert kept - {"odd"} == {f"host{number:03}-a" for number in range(5, MOST_KEPT + 5)}
    assert 0 < int(str(client.ttl(KEYS.vanished))) <= 86_400


def test_a_ledger_of_every_run(
    client: redis.Redis, redis_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 as long as one lacks an answer; 0 where there is none at all."""
    assert main(["verify", "--redis", redis_server.url]) == 0
    for run in ("run-1", "run-2"):
        Submitter(client, run, 5).offer(5)
    assert capsys.readouterr().out == "no runs\n"

    code = main(["verify", "--redis", redis_server.url, "--json"])

    found = json.loads(capsys.readouterr().out)["runs"]
    assert {one["run"]: (one["accepted"], one["missing"]) for one in found} == {"run-1": (5, 5), "run-2": (5, 5)}
    assert code == 3
