"""Replicas that all see the same eight GPUs share them out, and take over what a dead one had."""

from __future__ import annotations

from tests.compose.composed import Composed
from tests.processes import wait_until

EIGHT = [f"GPU-{number}" for number in range(8)]


def test_four_of_five_hold_disjoint_slices_and_the_fifth_replaces_one_that_dies(fleet: Composed) -> None:
    """Slices of two.

    The fifth stands by, healthy and visible; 15 seconds after a kill it holds the dead worker's GPUs.
    """
    fleet.configure("vllm_args: {tensor_parallel_size: 2}\n")
    fleet.environ["IMAGINARY_GPUS"] = ",".join(EIGHT)
    fleet.up(workers=5)

    running, standby = fleet.workers("running"), fleet.workers("standby")
    assert sorted(gpu for worker in running for gpu in worker["gpus"]) == EIGHT
    assert [len(worker["gpus"]) for worker in running] == [2, 2, 2, 2]
    assert len(standby) == 1
    assert "standby: needs 2 GPUs, 8 of 8 leased" in fleet.logs("gpu-worker")

    victim, fifth = running[0], standby[0]["name"]
    fleet.kill(victim["name"].rsplit("-", 1)[0], for_good=True)

    def fifth_holds() -> bool:
        return any(worker["name"] == fifth and worker["gpus"] == victim["gpus"] for worker in fleet.workers("running"))

    wait_until(fifth_holds, "the fifth has the GPUs of the one that died", within_s=15)
