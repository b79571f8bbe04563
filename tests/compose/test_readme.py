"""What README shows of Docker, word by word, in a fresh clone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.composed import ROOT
from tests.processes import read_answers

SECTION = "## With Docker"
PROJECT = "batchfleet-readme"


@pytest.fixture
def clone(tmp_path: Path, built: None) -> Iterator[Path]:  # noqa: ARG001 (built for its effect: then `up` finds all layers)
    """The repository as `git clone` gives it; what it started is gone afterwards."""
    folder = tmp_path / "batchfleet"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)  # noqa: S603, S607 (ours)
    yield folder
    down = ["docker", "compose", "--project-name", PROJECT, "--profile", "*", "down", "--volumes", "--timeout", "5"]
    subprocess.run(down, cwd=folder, check=True, capture_output=True)  # noqa: S603 (ours)


def commands(readme: str) -> str:
    """The indented lines of the section, which is all of them that a reader would type."""
    section = readme.split(f"\n{SECTION}\n")[1].split("\n## ", maxsplit=1)[0]
    return "\n".join(line.removeprefix("    ") for line in section.splitlines() if line.startswith("    "))


@pytest.mark.slow
def test_the_docker_section_works_in_a_fresh_clone(clone: Path) -> None:
    """Every question of the example has its answer."""
    script = commands((clone / "README.md").read_text())
    environ = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT}

    done = subprocess.run(  # noqa: S603 (ours)
        ["bash", "-euxo", "pipefail", "-c", script],  # noqa: S607 (ours)
        cwd=clone,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    questions = (clone / "examples/science.jsonl").read_bytes().count(b"\n")
    answers = read_answers(clone / "data/answers.jsonl")
    assert len(answers) == questions
    assert {answer["status"] for answer in answers} == {"answered"}
    assert f"{questions} answered, 0 failed" in done.stderr
