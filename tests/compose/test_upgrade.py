"""A fleet is replaced by the next version while it works; two built images that speak different wire versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.compose.composed import PACKAGES, ROOT, Composed
from tests.processes import lines_in, read_answers, wait_until, write_questions
from wire.messages import WIRE_VERSION

NEXT = "next"


@pytest.fixture
def next_image(built: None, tmp_path: Path) -> None:  # noqa: ARG001 (built first: then only what differs is built here)
    """An image of this tree with the wire version of a release to come."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (*PACKAGES, "deploy", "requirements"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    messages = tree / "wire/messages.py"
    now = f"WIRE_VERSION = {WIRE_VERSION}\n"
    assert now in messages.read_text()
    messages.write_text(messages.read_text().replace(now, f"WIRE_VERSION = {WIRE_VERSION + 1}\n"))
    arguments = [
        part
        for name in ("PYTHON_IMAGE",)
        if name in os.environ
        for part in ("--build-arg", f"{name}={os.environ[name]}")
    ]
    command = [
        "docker",
        "build",
        "--quiet",
        "--target",
        "fleet",
        "--tag",
        f"batchfleet/fleet:{NEXT}",
        *arguments,
        str(tree),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    assert done.returncode == 0, done.stderr[-2000:]


def waiting_for_the_next(fleet: Composed) -> int:
    """Batches that wait for a worker of a newer version."""
    script = (
        'REDISCLI_AUTH="$REDIS_PASSWORD" $(command -v valkey-cli || command -v redis-cli) ZCARD batchfleet:newer:stub'
    )
    return int(fleet.inside("redis", "sh", "-c", script))


def submit(fleet: Composed, name: str) -> subprocess.Popen[str]:
    """Have a producer of the version that is set ask NAME.jsonl."""
    return fleet.start("submit", f"/data/{name}.jsonl", "-o", f"/data/{name}.out", "--run", name, "--json")


def assert_answered_once(fleet: Composed, producer: subprocess.Popen[str], name: str, ids: list[str]) -> list[str]:
    """By first attempts; returns the hosts of the workers that did it."""
    _, err = producer.communicate(timeout=200)
    assert producer.returncode == 0, err[-3000:]
    answers = read_answers(fleet.folder / f"{name}.out")
    assert Counter(answer["id"] for answer in answers) == Counter(ids)
    assert {(answer["status"], answer["attempts"]) for answer in answers} == {("answered", 1)}
    ledger = json.loads(fleet.ask("verify", name, "--json").stdout)
    assert (ledger["answered"], ledger["missing"], ledger["duplicates"]) == (len(ids), 0, 0)
    return sorted({answer["worker"].rpartition("-")[0] for answer in answers})


@pytest.mark.slow
@pytest.mark.usefixtures("next_image")
def test_the_next_version_takes_over_under_load(fleet: Composed) -> None:
    """Old producers are answered by both; what a new one asks waits for new workers, while the old ones work on.

    Nothing is lost or done twice.
    """
    fleet.configure("limits: {run_window: 20000}\n")
    fleet.environ["STUB_STEP_S"] = "0.02"
    fleet.up(workers=2)
    old = write_questions(fleet.folder / "old.jsonl", 12_000)
    new = [f"new{number}" for number in range(1_000)]
    # Urgent, or they would stand behind the others.
    fleet.write(
        "new.jsonl", "".join(f'{{"id": "{name}", "question": "What is {name}?", "priority": 5}}\n' for name in new)
    )
    asks_old = submit(fleet, "old")
    wait_until(lambda: lines_in(fleet.folder / "old.out") > 100, "answers come")

    fleet.environ["BATCHFLEET_VERSION"] = NEXT
    asks_new = submit(fleet, "new")
    wait_until(lambda: waiting_for_the_next(fleet) > 0, "the old workers refuse what they cannot read")
    so_far = lines_in(fleet.folder / "old.out")
    wait_until(lambda: lines_in(fleet.folder / "old.out") > so_far, "and continue with what they can")
    assert lines_in(fleet.folder / "new.out") == 0
    # As docs/docker.md says: the new ones beside the old, then only the new, batchers included.
    before = fleet.containers("gpu-worker")
    fleet.up(workers=4)
    joined = set(fleet.containers("gpu-worker")) - set(before)
    assert len(joined) == 2
    wait_until(lambda: lines_in(fleet.folder / "new.out") > 0, "the new ones answer")
    assert lines_in(fleet.folder / "old.out") < len(old), "too fast: nothing was left when it became interesting"
    fleet.compose("up", "--detach", "--wait", "--no-build", "--pull", "never", "--scale", "gpu-worker=2")
    assert {fleet.inspect(worker, "{{.Config.Image}}") for worker in fleet.containers("gpu-worker")} == {
        f"batchfleet/fleet:{NEXT}"
    }

    hosts = assert_answered_once(fleet, asks_new, "new", new)
    assert {host[:12] for host in hosts}.isdisjoint(container[:12] for container in before)
    assert len(assert_answered_once(fleet, asks_old, "old", old)) > 2
