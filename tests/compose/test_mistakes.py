"""Wrong configurations: each is one line that says so, and a service that is unhealthy and quiet."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.compose.composed import Composed
from tests.processes import wait_until

EIGHT = ",".join(f"GPU-{number}" for number in range(8))
QUICK = {"interval": "2s", "retries": 1, "start_period": "1s"}
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "three-of-eight-gpus": (
        "vllm_args: {tensor_parallel_size: 3}",
        {},
        "tensor_parallel_size 3 does not divide the 8 GPUs",
    ),
    "more-gpus-than-there-are": (
        "vllm_args: {tensor_parallel_size: 9}",
        {},
        "needs 9 GPUs (tensor_parallel_size 9), and this host lets it have 8",
    ),
    "no-whole-number-of-gpus": (
        "vllm_args: {tensor_parallel_size: three}",
        {},
        "tensor_parallel_size is 'three'; it must be a whole number",
    ),
    "unknown-key": ("batch_sise: 16", {}, "batch_size"),
    "missing-model": (
        "batch_size: 16",
        {"command": ["worker", "--config", "/etc/batchfleet/fleet.yaml"]},
        "which model should answer?",
    ),
    "wrong-password": (
        "batch_size: 16",
        {"environment": {"BATCHFLEET_REDIS_PASSWORD": "wrong"}},
        "does not accept the user or password",
    ),
}


def mistaken(fleet: Composed, worker: dict[str, Any], name: str) -> dict[str, Any]:
    """A worker with that mistake, as a service of its own."""
    config, changes, _ = MISTAKES[name]
    volume = {
        "type": "bind",
        "source": str(fleet.write(f"{name}.yaml", config)),
        "target": "/etc/batchfleet/fleet.yaml",
        "read_only": True,
    }
    environment = {**worker["environment"], **changes.get("environment", {})}
    return {
        **worker,
        **changes,
        "environment": environment,
        "volumes": [volume],
        "healthcheck": {**worker["healthcheck"], **QUICK},
    }


def test_each_mistake_is_one_line_and_an_unhealthy_service(fleet: Composed) -> None:
    """Docker restarts nothing, and each log holds its message once."""
    fleet.environ["IMAGINARY_GPUS"] = EIGHT
    fleet.up("redis")
    worker = fleet.config()["services"]["gpu-worker"]
    fleet.extend("mistakes", {name: mistaken(fleet, worker, name) for name in MISTAKES})

    fleet.compose("up", "--detach", "--no-build", "--pull", "never", "--no-deps", *MISTAKES)
    containers = {name: fleet.containers(name)[0] for name in MISTAKES}
    for name, container in containers.items():
        wait_until(
            partial(fleet.is_unhealthy, container),
            f"{name}: it is unhealthy",
        )

    for name, container in containers.items():
        assert fleet.inspect(container, "{{.RestartCount}} {{.State.Running}}") == "0 true", name
        (line,) = [line for line in fleet.logs(name).splitlines() if "batchfleet:" in line]
        assert MISTAKES[name][2] in line


def test_up_waits_for_no_service_that_is_misconfigured(fleet: Composed) -> None:
    """`up --wait` fails instead of waiting for ever."""
    fleet.configure("batch_sise: 16")
    fleet.extend("quick", {"gpu-worker": {"healthcheck": QUICK}, "batcher": {"healthcheck": QUICK}})

    failed = fleet.compose("up", "--detach", "--wait", "--no-build", "--pull", "never", check=False)

    assert failed.returncode != 0
    assert "unhealthy" in failed.stderr
