"""What the Compose files promise without being run: GPUs, users, ports."""

from __future__ import annotations

import json
from pathlib import Path

from tests.compose.composed import PACKAGES, ROOT, Composed


def test_workers_reserve_all_gpus_and_the_stub_none(tmp_path: Path) -> None:
    """Every replica sees all GPUs, and claims a slice of them."""
    with_gpus = Composed("batchfleet-test", tmp_path, files=[ROOT / "docker-compose.yml"])
    workers = [
        json.loads(fleet.compose("config", "--format", "json").stdout)["services"]["gpu-worker"]
        for fleet in (with_gpus, Composed("x", tmp_path))
    ]

    reserved = [worker["deploy"].get("resources", {}).get("reservations", {}).get("devices") for worker in workers]
    assert reserved[0] == [{"capabilities": ["gpu"], "driver": "nvidia", "count": -1}]
    assert not reserved[1]


def test_nothing_is_published_and_everything_is_locked_down(tmp_path: Path) -> None:
    """No port but the gateway's, and that on loopback; no root, no writable image, no capability."""
    services = json.loads(Composed("x", tmp_path).compose("--profile", "*", "config", "--format", "json").stdout)[
        "services"
    ]

    assert set(services) == {"redis", "batcher", "gpu-worker", "producer", "gateway"}
    assert [port["host_ip"] for port in services["gateway"].pop("ports")] == ["127.0.0.1"]
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
