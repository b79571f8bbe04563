"""`batchfleet slurm` on Slurm itself: see scripts/test-slurm."""

from __future__ import annotations

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


def test_an_array_of_workers_answers_a_file(slurm: Cluster, tmp_path: Path) -> None:
    """Submitted once, the file is answered, each question once, and no job is left."""
    ids = write_questions(tmp_path / "questions.jsonl", 3_000)
    answers = tmp_path / "answers.jsonl"
    (tmp_path / "fleet.yaml").write_text("model: {generator_settings: {model: stub}}\nstub: {step_s: 0.01}\n")

    done = batchfleet(
        *("slurm", "submit", str(tmp_path / "questions.jsonl"), "-o", str(answers)),
        *("--config", str(tmp_path / "fleet.yaml"), "--engine", "stub", "--workers", "2"),
        *("--partition", "gpu", "--queue-partition", "cpu", "--time", "10"),
    )
    assert done.returncode == 0, done.stderr
    name = next(line for line in slurm.on("squeue", "--noheader", "--format=%j").splitlines()).removesuffix("-queue")
    try:
        wait_until(lambda: over([f"{name}-queue", f"{name}-worker"]), "all jobs are over", 200)
    finally:
        print(done.stderr, slurm.on("squeue"), logs(answers))

    assert lines_in(answers) == len(ids)
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    grants = [grant for grant in slurm.grants() if grant.name.endswith("-worker")]
    assert 1 <= len(grants) <= 2
