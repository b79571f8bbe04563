"""A wrong configuration: one line that says so, and a service that is unhealthy and quiet."""

from __future__ import annotations

import pytest

from tests.compose.composed import Composed
from tests.processes import wait_until

WITHOUT_STUB = ["worker", "--config", "/etc/batchfleet/fleet.yaml"]
QUICK = {"interval": "2s", "retries": 1, "start_period": "1s"}
MISTAKES = {
    "more GPUs than there are": (
        "vllm_args: {tensor_parallel_size: 9}",
        "the engine needs 9 GPUs (tensor_parallel_size 9), and this host lets it have 8",
    ),
    "unknown key": ("batch_sise: 16", "batch_size"),
    "missing model": ("batch_size: 16", "no model is named"),
    "wrong password": ("batch_size: 16", "does not accept the user or password"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_an_unhealthy_service(fleet: Composed, mistake: str) -> None:
    """Docker restarts nothing, `up --wait` fails, and the log holds the message once."""
    config, expected = MISTAKES[mistake]
    fleet.configure(config)
    fleet.environ["IMAGINARY_GPUS"] = ",".join(f"GPU-{number}" for number in range(8))
    fleet.up("redis")
    worker: dict[str, object] = {"healthcheck": QUICK}
    if mistake == "missing model":
        worker["command"] = WITHOUT_STUB
    fleet.extend("mistake", {"gpu-worker": worker})
    if mistake == "wrong password":
        fleet.environ["REDIS_PASSWORD"] = "wrong"  # noqa: S105 (that is the test)

    fleet.compose("up", "--detach", "--no-build", "--pull", "never", "--no-deps", "gpu-worker")
    container = fleet.containers("gpu-worker")[0]
    wait_until(lambda: fleet.inspect(container, "{{.State.Health.Status}}") == "unhealthy", "it is unhealthy")

    assert fleet.inspect(container, "{{.RestartCount}} {{.State.Running}}") == "0 true"
    lines = [line for line in fleet.logs("gpu-worker").splitlines() if "batchfleet:" in line]
    assert len(lines) == 1
    assert expected in lines[0]
