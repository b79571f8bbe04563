"""The example configurations of the three strategies, on eight imaginary GPUs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.compose.composed import FILES, ROOT, Composed
from tests.processes import read_answers

EIGHT = [f"GPU-{number}" for number in range(8)]


@pytest.fixture
def eight(fleet: Composed) -> Composed:
    """A fleet on a host with eight GPUs."""
    fleet.environ["IMAGINARY_GPUS"] = ",".join(EIGHT)
    return fleet


def slices(fleet: Composed) -> list[tuple[str, int]]:
    """Model and number of GPUs of each worker; no GPU may belong to two."""
    workers = fleet.workers("running")
    gpus = [gpu for worker in workers for gpu in worker["gpus"]]
    assert sorted(gpus) == sorted(set(gpus))
    return sorted((worker["model"], len(worker["gpus"])) for worker in workers)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers", "size"), [("one-worker", 1, 8), ("four-workers", 4, 2)])
def test_a_strategy_of_one_model(eight: Composed, name: str, workers: int, size: int) -> None:
    """As many workers as fit, with slices of the size that the file says."""
    eight.environ["FLEET_CONFIG"] = f"./deploy/strategy-{name}.yaml"

    eight.up(workers=workers)

    assert [gpus for _, gpus in slices(eight)] == [size] * workers


@pytest.mark.slow
def test_two_models_share_a_host_and_questions_name_theirs(eight: Composed) -> None:
    """One worker of four GPUs, four of one; each question is answered by the model that it names."""
    eight.environ["FLEET_CONFIG"] = "./deploy/strategy-hybrid-large.yaml"
    eight.files = [ROOT / FILES[0], ROOT / "deploy/docker-compose.hybrid.yml", ROOT / FILES[1]]
    # What the file for the stub says of the one kind of worker, said of the other.
    stub = {
        "image": "batchfleet/fleet:0.1.0",
        "command": ["worker", "--engine", "stub", "--config", "/etc/batchfleet/fleet.yaml"],
    }
    environment = {"BATCHFLEET_GPUS": ",".join(EIGHT), "BATCHFLEET_STUB_STEP_S": "0.001"}
    eight.extend("small", {"gpu-worker-small": {**stub, "environment": environment}})
    models = [("large", "small")[number % 2] for number in range(40)]
    lines = (
        json.dumps({"id": f"q{number}", "question": "Which are you?", "model": model})
        for number, model in enumerate(models)
    )
    eight.write("questions.jsonl", "".join(f"{line}\n" for line in lines))

    eight.up()

    assert slices(eight) == [("large", 4), *[("small", 1)] * 4]
    done = eight.ask("submit", "/data/questions.jsonl", "-o", "/data/answers.jsonl", "--model", "large")
    assert done.returncode == 0, done.stderr
    assert {answer["id"]: answer["model"] for answer in read_answers(eight.folder / "answers.jsonl")} == {
        f"q{number}": model for number, model in enumerate(models)
    }


def test_the_scripts_of_deploy_can_be_read_by_their_shells() -> None:
    """A typing error in one that no test runs to its end shows at once."""
    for script in sorted((ROOT / "deploy").iterdir()):
        shell = script.read_text(errors="replace").splitlines()[0] if script.is_file() else ""
        if "bash" in shell or "/sh" in shell:
            subprocess.run(  # noqa: S603 (ours)
                [Path(shell.split("/")[-1]).name.split()[-1], "-n", str(script)], check=True, capture_output=True
            )
