"""An array of workers on a Slurm whose nodes come and go: see scripts/test-slurm. Takes six minutes or more."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

from tests.processes import lines_in, read_answers, wait_until, write_questions
from tests.slurm.cluster import Cluster, Grant, cluster, over
from tests.slurm.monitor import FIRST_PORT, PORTS, Monitor, kill_node
from tests.slurm.test_slurm import batchfleet, logs, pytestmark  # noqa: F401 (pytest reads the last one)

WORKERS = 8
QUESTIONS = 20_000
BOOT_S = 5
LIFE_S = 60
LONGEST_ANSWER_S = 13
PATIENCE_S = 1100
CONFIG = f"""
model: {{generator_settings: {{model: stub}}}}
stub: {{step_s: 0.1, boot_s: {BOOT_S}, min_tokens: 8, max_tokens: 128}}
leases: {{drain_s: {LONGEST_ANSWER_S}}}
processing: {{scale_down_s: 5}}
metrics: {{port: {FIRST_PORT}, ports: {PORTS}}}
"""


class Run:
    """The run of the test, whose parts it knows by name."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.slurm = slurm
        self.answers = folder / "answers.jsonl"
        self.arguments = [
            *(str(folder / "questions.jsonl"), "-o", str(self.answers), "--config", str(folder / "fleet.yaml")),
            *("--engine", "stub", "--workers", str(WORKERS), "--time", "1"),
            *("--partition", "gpu", "--queue-partition", "cpu"),
        ]

    def submit(self) -> str:
        """Queue it, with scripts that were edited for jobs of a minute; returns its name."""
        scripts = Path(f"{self.answers}.slurm")
        assert batchfleet("slurm", "submit", *self.arguments, "--write-only").returncode == 0
        worker, controller = scripts / "worker.sbatch", scripts / "controller.sbatch"
        worker.write_text(worker.read_text().replace("\nmargin=28\n", f"\nmargin={LONGEST_ANSWER_S + 2}\n"))
        controller.write_text(controller.read_text().replace(" slurm controller ", " slurm controller --look 1 "))
        done = batchfleet("slurm", "submit", *self.arguments)
        assert done.returncode == 0, done.stderr
        assert "left as it is" in done.stderr
        return self.slurm.on("squeue", "--noheader", "--format=%j").split()[0].removesuffix("-queue")

    def jobs(self, name: str) -> list[tuple[str, str]]:
        """Id and node of each that runs."""
        lines = self.slurm.on("squeue", "--noheader", "--array", "--states=R", f"--name={name}", "--format=%i %N")
        return [(job, node) for job, node in (line.split() for line in lines.splitlines())]

    def a_job(self, name: str) -> tuple[str, str]:
        """The first that runs, once one does."""
        wait_until(lambda: self.jobs(name), f"a job named {name} runs", 120)
        return self.jobs(name)[0]

    def wait_for(self, share: float) -> None:
        wait_until(lambda: lines_in(self.answers) >= share * QUESTIONS, f"{share:.0%} are answered", PATIENCE_S)


def disturb(run: Run, name: str) -> None:
    """What happens to jobs on clusters, one after the other, while questions are answered."""
    slurm, worker, queue = run.slurm, f"{name}-worker", f"{name}-queue"
    run.wait_for(0.1)
    slurm.on(
        "sbatch",
        "--partition=urgent",
        "--nodes=2",
        "--gpus-per-node=1",
        "--time=1",
        "--output=/dev/null",
        "--wrap=sleep 10",
    )
    run.wait_for(0.2)
    slurm.on("scontrol", "requeue", run.a_job(worker)[0])
    run.wait_for(0.3)
    slurm.on("scancel", run.a_job(worker)[0])
    run.wait_for(0.4)
    lost = run.a_job(worker)[1]
    kill_node(lost)
    wait_until(lambda: "down" in slurm.states()[lost], f"{lost} is down", 120)
    slurm.start_node(lost)
    run.wait_for(0.6)
    slurm.on("scontrol", "requeue", run.a_job(queue)[0])


def report(grants: list[Grant], monitor: Monitor) -> float:
    """Print what was measured; returns the busy share of the time that Slurm granted."""
    granted_s = sum(grant.end - grant.start for grant in grants)
    share = monitor.busy_s / granted_s
    possible = 1 - BOOT_S * len(grants) / granted_s
    print(
        f"\ngranted {granted_s:.0f} s in {len(grants)} starts of worker jobs, {granted_s / len(grants):.1f} s each: "
        f"{dict(Counter(grant.state for grant in grants))}; at most {monitor.most_jobs} at a time\n"
        f"engines busy {monitor.busy_s:.0f} s: {share:.3f} (with boots of {BOOT_S} s, {possible:.3f} is possible)\n"
        f"worker processes there {monitor.up_s:.0f} s, boots included: {monitor.up_s / granted_s:.3f}; the rest is "
        f"Python's start and end; load of this machine: {os.getloadavg()[1]:.0f}",
        file=sys.__stderr__,
    )
    return share


def test_each_question_is_answered_once_while_jobs_come_and_go(tmp_path: Path) -> None:
    """Preempted, requeued, cancelled, out of time, on a node that is lost: the queue moves once, and engines stay busy.

    No more jobs than asked for are ever there, and none is queued once nothing is left.
    """
    ids = write_questions(tmp_path / "questions.jsonl", QUESTIONS)
    (tmp_path / "fleet.yaml").write_text(CONFIG)
    with cluster(tmp_path / "slurm", WORKERS) as slurm:
        run = Run(slurm, tmp_path)
        name = run.submit()
        try:
            with Monitor(f"{name}-worker") as monitor:
                disturb(run, name)
                wait_until(lambda: over([f"{name}-queue", f"{name}-worker"]), "all jobs are over", PATIENCE_S)
        finally:
            print(slurm.on("squeue"), logs(run.answers))
        grants = slurm.grants(f"{name}-worker")
        controllers = slurm.grants(f"{name}-queue")

    lines = read_answers(run.answers)
    share = report(grants, monitor)
    assert lines_in(run.answers) == QUESTIONS
    assert Counter(line["id"] for line in lines) == Counter(ids)
    assert monitor.most_jobs == WORKERS
    assert len(controllers) == 2, controllers
    # What the share says depends on the machine: eight nodes start their programs on its cores at once.
    assert share >= float(os.environ.get("LEAST_SHARE", "0"))
