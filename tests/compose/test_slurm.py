"""The example for Slurm, with a stand-in for `srun`, both of whose nodes are this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.compose.composed import ROOT
from tests.processes import read_answers, write_questions

SRUN = """#!/usr/bin/env bash
set -u
while [[ $1 == --* ]]; do shift; done
for node in node1 node2; do
    SLURMD_NODENAME=$node "$@" --engine stub &
    tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}"' TERM
for task in "${tasks[@]}"; do
    while wait "$task"; kill -0 "$task" 2>/dev/null; do :; done
done
"""


def test_a_slurm_job_answers_a_file_on_two_nodes(tmp_path: Path) -> None:
    """Both nodes work, the job ends with the producer's code, and everything that it started ends with it."""
    ids = write_questions(tmp_path / "questions.jsonl", 2_000)
    (tmp_path / "fleet.yaml").write_text("model: {generator_settings: {model: stub}}\n")
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    answers = tmp_path / "answers.jsonl"
    environ = {
        **os.environ,
        "PATH": f"{srun.parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "BATCHFLEET_STUB_STEP_S": "0.01",
    }
    arguments = [str(tmp_path / "fleet.yaml"), str(tmp_path / "questions.jsonl"), str(answers)]

    job = subprocess.Popen(  # noqa: S603 (ours)
        [str(ROOT / "deploy/slurm.sbatch"), *arguments], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        _, err = job.communicate(timeout=120)
    finally:
        job.terminate()

    assert job.returncode == 0, err[-3000:]
    lines = read_answers(answers)
    assert sorted(line["id"] for line in lines) == sorted(ids)
    assert {path.name for path in (tmp_path / "workers").iterdir()} == {"node1", "node2"}
    assert len({line["worker"] for line in lines}) == 2
