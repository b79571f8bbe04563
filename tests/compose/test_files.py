"""What the Compose files and images promise without being run: GPUs, users, secrets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.compose.composed import FILES, PACKAGES, ROOT, Composed

SECRET = "hunter2hunter2"  # noqa: S105 (that is the test)


def test_workers_reserve_all_gpus_and_the_stub_none(tmp_path: Path) -> None:
    """Every replica sees all GPUs, and claims a slice of them."""
    with_gpus = Composed("batchfleet-test", tmp_path, files=[ROOT / "docker-compose.yml"])
    workers = [
        json.loads(fleet.compose("config", "--format", "json").stdout)["services"]["gpu-worker"] for fleet in (with_gpus, Composed("x", tmp_path))
    ]

    reserved = [worker["deploy"].get("resources", {}).get("reservations", {}).get("devices") for worker in workers]
    assert reserved[0] == [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}]
    assert not reserved[1]


def test_nothing_is_published_and_everything_is_locked_down(tmp_path: Path) -> None:
    """No port, no root, no writable image, no capability."""
    services = json.loads(Composed("x", tmp_path).compose("--profile", "*", "config", "--format", "json").stdout)["services"]

    assert set(services) == {"redis", "batcher", "gpu-worker", "producer"}
    for service in services.values():
        assert "ports" not in service
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_without_a_password_nothing_starts(tmp_path: Path) -> None:
    """The message says what to do."""
    fleet = Composed("x", tmp_path)
    fleet.environ["REDIS_PASSWORD"] = ""

    failed = fleet.compose("config", check=False)

    assert failed.returncode != 0
    assert "copy .env.example to .env and set it there" in failed.stderr


def test_the_example_environment_has_what_the_files_ask_for() -> None:
    """Every variable of the Compose files is explained there, and no other."""
    asked = {
        part.split("}")[0].split(":")[0]
        for name in ("docker-compose.yml", "docker-compose.stub.yml")
        for part in (ROOT / name).read_text().split("${")[1:]
    }
    lines = (ROOT / ".env.example").read_text().splitlines()
    explained = {line.lstrip("#").split("=")[0] for line in lines if "=" in line and not line.startswith("# ")}

    assert asked == explained


def test_every_package_gets_into_the_images() -> None:
    """One that was forgotten would be missed only when somebody imports it there."""
    copied = {line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")}
    let_in = (ROOT / ".dockerignore").read_text().splitlines()

    assert set(PACKAGES) <= copied
    assert {f"!{package}/" for package in PACKAGES} <= set(let_in)


@pytest.fixture(scope="module")
def images(built: None) -> list[str]:  # noqa: ARG001 (built for its effect)
    """Both images, as they are built where `.env` holds secrets. A stand-in may take the place of vLLM's own image."""
    fleet = Composed("batchfleet-test", Path("/tmp"), {"HF_TOKEN": SECRET}, [ROOT / FILES[0]])  # noqa: S108 (nothing is written)
    fleet.environ["REDIS_PASSWORD"] = SECRET
    fleet.compose("build", "batcher", "gpu-worker")
    return [f"batchfleet/{image}:0.1.0" for image in ("fleet", "gpu-worker")]


def in_image(image: str, script: str) -> str:
    """What a script prints in a container that has no network and may write nothing."""
    command = ["docker", "run", "--rm", "--read-only", "--network", "none", "--entrypoint", "sh", image, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 (ours)


def test_both_images_run_the_same_command_and_none_as_root(images: list[str]) -> None:
    """Both are built from one Dockerfile; what is tested of the one holds for the other."""
    for image in images:
        said = in_image(image, "id -u; batchfleet --help")
        assert said.startswith("10001\n")
        assert "usage: batchfleet" in said


def test_no_image_holds_a_secret_or_a_file_that_is_only_ours(images: list[str]) -> None:
    """Neither in its history nor in its files; and of the checkout, only the packages."""
    for image in images:
        history = subprocess.run(["docker", "history", "--no-trunc", image], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607 (ours)
        assert SECRET not in history
        grep = f"grep -rl {SECRET} / --exclude-dir=proc --exclude-dir=sys 2>/dev/null"
        found = in_image(image, f"{grep}; ls -d /opt/batchfleet/tests /opt/batchfleet/docs /opt/batchfleet/.env 2>/dev/null; true")
        assert found == ""


def test_our_own_layers_are_small(images: list[str]) -> None:
    """On top of Python's image: our packages and what they need, without pip's cache."""
    command = ["docker", "history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", images[0]]
    layers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603 (ours)
    ours = [int(layer.split()[0]) for layer in layers if "/opt/batchfleet" in layer or "batchfleet" in layer]
    assert sum(ours) < 150_000_000
