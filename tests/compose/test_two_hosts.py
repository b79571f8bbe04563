"""deploy/queue-host and deploy/worker-host, on two hosts that are network namespaces of this one."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchfleet.supervisor.processes import spawn, stop_all
from tests.compose.composed import ROOT
from tests.processes import lines_in, read_answers, wait_until, write_questions

QUEUE, OTHER = "10.77.31.1", "10.77.31.2"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def ip(*arguments: str) -> None:
    """Change the network."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607 (ours)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two hosts with a cable between them, and no other network."""
    names = [f"bf-{secrets.token_hex(3)}" for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, (QUEUE, OTHER), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names


def test_two_hosts_share_one_queue(hosts: list[str], tmp_path: Path) -> None:
    """Redis and the batchers on the first, a worker on each: both answer, each question once.

    `down --all` ends the workers, then the queue.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 2_000)
    common = {
        **os.environ,
        "REDIS_PASSWORD": "correct0horse",
        "BATCHFLEET_STUB_STEP_S": "0.01",
        "QUEUE_DATA": str(tmp_path / "queue"),
    }
    asking = {**common, "BATCHFLEET_REDIS_URL": f"redis://{QUEUE}:6379/0", "BATCHFLEET_REDIS_PASSWORD": "correct0horse"}
    answers = tmp_path / "answers.jsonl"

    def on(host: str, log: str, env: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
        return spawn(["ip", "netns", "exec", host, *command], env, tmp_path / log)

    queue = on(hosts[0], "queue.log", common, str(ROOT / "deploy/queue-host"), QUEUE)
    # One machine plays both hosts, by one name.
    places = {host: {**common, "WORKER_STATE": str(tmp_path / host)} for host in hosts}
    workers = [
        on(host, f"{host}.log", places[host], str(ROOT / "deploy/worker-host"), QUEUE, "1", "--engine", "stub")
        for host in hosts
    ]
    try:
        for host in hosts:
            wait_until(lambda host=host: "1 running" in (tmp_path / f"{host}.log").read_text(), f"{host} works")  # type: ignore[misc]
        batchfleet = str(ROOT / ".venv/bin/batchfleet")
        producer = on(
            hosts[1],
            "producer.log",
            asking,
            batchfleet,
            "submit",
            str(tmp_path / "questions.jsonl"),
            "-o",
            str(answers),
        )
        wait_until(lambda: lines_in(answers) == len(ids), "all are answered")
        assert producer.wait(20) == 0
        down = on(hosts[1], "down.log", asking, batchfleet, "down", "--all")
        assert down.wait(60) == 0
        assert [process.wait(30) for process in (*workers, queue)] == [0, 0, 0], (tmp_path / "queue.log").read_text()[
            -2000:
        ]
    finally:
        stop_all(workers, grace_s=30)
        stop_all([queue], grace_s=30)
    said = (tmp_path / "down.log").read_text()
    # Those with workers first, the batchers last.
    assert [line.partition(" ")[2] for line in said.splitlines()] == [
        *["1 worker to finish what they hold"] * 2,
        *["is down"] * 3,
    ]
    assert sorted(answer["id"] for answer in read_answers(answers)) == sorted(ids)
    assert len({answer["worker"] for answer in read_answers(answers)}) == 2
