"""The example for Slurm on Slurm itself: Debian's, on two nodes that are containers."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.composed import ROOT
from tests.processes import lines_in, read_answers, wait_until, write_questions

IMAGE = "batchfleet-test/slurm"
NODES = ("node1", "node2")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def docker(*arguments: str) -> str:
    """Run one of its commands; returns what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=280, check=False)  # noqa: S603, S607 (ours)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


class Cluster:
    """Two nodes that share a folder, as clusters do; the checkout's deploy/ lies there as well."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_first(self, *command: str) -> str:
        """Run a command on the node where users log in."""
        return docker("exec", "--workdir", "/checkout", f"bf-slurm-{NODES[0]}", *command)

    def submit(self) -> str:
        """`sbatch` the example; returns the job's id."""
        environment = ["BATCHFLEET=/usr/local/bin/on-stub", "PYTHON=python3", "BATCHFLEET_STUB_STEP_S=0.01"]
        files = [f"/data/{name}" for name in ("fleet.yaml", "questions.jsonl", "answers.jsonl")]
        job = self.on_first(
            "env", *environment, "sbatch", "--parsable", "--output=/data/job-%j.log", "deploy/slurm.sbatch", *files
        )
        return job.strip()

    def state(self, job: str) -> str:
        """Such as RUNNING or COMPLETED; after its end also with the exit code."""
        words = dict(
            word.split("=", 1)
            for word in self.on_first("scontrol", "--oneliner", "show", "job", job).split()
            if "=" in word
        )
        return f"{words['JobState']} {words['ExitCode']}" if words["JobState"] in ENDED else words["JobState"]

    def log(self, job: str) -> str:
        return (self._folder / f"job-{job}.log").read_text()


@pytest.fixture
def cluster(built: None, tmp_path: Path) -> Iterator[Cluster]:  # noqa: ARG001 (the image that a node is built on)
    """Up, and idle."""
    docker("build", "--quiet", "--tag", IMAGE, str(ROOT / "tests/compose/slurm"))
    names = [f"bf-slurm-{node}" for node in NODES]
    subprocess.run(["docker", "rm", "--force", *names], capture_output=True, check=False)  # noqa: S603, S607 (ours)
    subprocess.run(["docker", "network", "rm", IMAGE.replace("/", "-")], capture_output=True, check=False)  # noqa: S603, S607 (ours)
    docker("network", "create", IMAGE.replace("/", "-"))
    mounts = ["--volume", f"{tmp_path}:/data", "--volume", f"{ROOT}/deploy:/checkout/deploy:ro"]
    try:
        for node, name in zip(NODES, names, strict=True):
            network = ["--network", IMAGE.replace("/", "-"), "--network-alias", node, "--hostname", node]
            docker("run", "--detach", "--init", "--name", name, *network, *mounts, IMAGE)
        found = Cluster(tmp_path)
        wait_until(
            lambda: (
                docker("exec", names[0], "sh", "-c", "sinfo --noheader --Node --format %T || true").split()
                == ["idle"] * 2
            ),
            "both are idle",
        )
        yield found
    finally:
        docker("rm", "--force", "--volumes", *names)
        docker("network", "rm", IMAGE.replace("/", "-"))


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_goes_on_where_it_stopped(cluster: Cluster, tmp_path: Path) -> None:
    """Slurm's warning before the end lets workers of both nodes finish what they hold.

    The same command again gets the rest, each answer once.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 3_000)
    answers = tmp_path / "answers.jsonl"
    (tmp_path / "fleet.yaml").write_text("model: {generator_settings: {model: stub}}\n")

    first = cluster.submit()
    wait_until(lambda: lines_in(answers) > 500, "answers come")
    # What `--signal=B:TERM@120` does two minutes before the end.
    cluster.on_first("scancel", "--batch", "--signal=TERM", first)
    wait_until(lambda: " " in cluster.state(first), "the first job has ended")
    assert cluster.state(first) == "FAILED 130:0", cluster.log(first)
    assert cluster.log(first).count("has gone") == 2
    assert "Killed" not in cluster.log(first)
    assert len(read_answers(answers)) < len(ids), "too fast: nothing was left when it became interesting"

    second = cluster.submit()
    wait_until(lambda: " " in cluster.state(second), "the second job has ended", within_s=120)

    assert cluster.state(second) == "COMPLETED 0:0", cluster.log(second)
    print(cluster.log(second))
    lines = read_answers(answers)
    assert Counter(line["id"] for line in lines) == Counter(ids)
    assert {line["worker"].split("-")[0] for line in lines} == set(NODES)
    assert {line["attempts"] for line in lines} == {1}
