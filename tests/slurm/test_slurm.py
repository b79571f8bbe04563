"""`batchfleet slurm` on Slurm itself: see scripts/test-slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, TREES, lines_in, read_answers, wait_until, write_questions
from tests.slurm.cluster import Cluster, cluster, over

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "IN_SLURM_TEST" not in os.environ, reason="scripts/test-slurm runs it, in namespaces of its own"
    ),
]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Cluster]:
    """Of two nodes with a GPU."""
    with cluster(tmp_path / "slurm", 2) as found:
        yield found


def batchfleet(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one of its commands."""
    env = {**os.environ, "PYTHONPATH": TREES, **environ}
    return subprocess.run(  # noqa: S603 (ours)
        [sys.executable, "-m", "batchfleet", *arguments], cwd=ROOT, env=env, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def logs(answers: Path) -> str:
    """Of all jobs."""
    return "\n".join(
        f"----- {path.name}\n{path.read_text()[-4000:]}"
        for path in sorted((Path(f"{answers}.slurm") / "logs").glob("*.log"))
    )


def test_a_run_is_scaled_stopped_and_continued(slurm: Cluster, tmp_path: Path) -> None:
    """By the commands alone; each question is answered once, and no job is left."""
    ids = write_questions(tmp_path / "questions.jsonl", 3_000)
    answers = tmp_path / "answers.jsonl"
    (tmp_path / "fleet.yaml").write_text("model: {generator_settings: {model: stub}}\nstub: {step_s: 0.03}\n")
    submit = [
        *("slurm", "submit", str(tmp_path / "questions.jsonl"), "-o", str(answers)),
        *("--config", str(tmp_path / "fleet.yaml"), "--engine", "stub", "--workers", "2"),
        *("--partition", "gpu", "--queue-partition", "cpu", "--time", "10"),
    ]

    def command(*arguments: str) -> str:
        done = batchfleet(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def running() -> int:
        return int(json.loads(command("slurm", "status", str(answers), "--json"))["workers"].get("running", 0))

    command(*submit)
    name = slurm.on("squeue", "--noheader", "--format=%j").split()[0].removesuffix("-queue")
    names = [f"{name}-queue", f"{name}-worker"]
    try:
        wait_until(lambda: running() == 2, "both nodes work", 120)
        wait_until(lambda: lines_in(answers) > 100, "answers come", 120)
        command("slurm", "scale", str(answers), "1")
        wait_until(lambda: running() == 1, "one node is given back", 120)
        command("slurm", "stop", str(answers))
        assert over(names)
        assert 100 < lines_in(answers) < len(ids)
        command(*submit)
        wait_until(lambda: over(names), "all jobs are over", 300)
    finally:
        print(slurm.on("squeue"), logs(answers))

    assert lines_in(answers) == len(ids)
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    assert 3 <= len(slurm.grants(f"{name}-worker")) <= 4
