"""Workers and their GPUs, with imaginary GPUs and a real Redis.

No GPU has two workers, and none lies idle while one waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.gpus.devices import GpuUse, Links, imagine
from gpu_worker.gpus.slice_claim import SliceClaim
from gpu_worker.gpus.slices import SliceOptions
from gpu_worker.reports.health import health_problem
from tests.processes import PATIENCE_S, Processes, wait_until
from wire.address import RedisAddress
from wire.errors import EngineBootError, EngineDeadError
from wire.keys import Keys

KEYS = Keys()
FOUR = "GPU-0,GPU-1,GPU-2,GPU-3"
EIGHT = ",".join(f"GPU-{number}" for number in range(8))
VLLM_ARGS = "BATCHFLEET_VLLM_ARGS"


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim sets CUDA_VISIBLE_DEVICES; the next test must not see it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
async def aclient(redis_server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """An asynchronous client of the test's Redis."""
    async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as connected:
        yield connected


@dataclass
class OccupiedGpus:
    """Imaginary GPUs on some of which imaginary processes are."""

    uuids: tuple[str, ...]
    by_processes: set[str]
    links: Links = frozenset()

    def occupied(self) -> frozenset[str]:
        return frozenset(self.by_processes)

    def use(self, uuids: Sequence[str]) -> tuple[GpuUse, ...]:  # noqa: ARG002 (nobody asks)
        return ()


@dataclass
class Worker:
    """A claim, and what it was told."""

    claim: SliceClaim
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    waits_for: list[str] = field(default_factory=list)
    lost: list[EngineDeadError] = field(default_factory=list)

    def hold(self) -> contextlib.AbstractAsyncContextManager[tuple[str, ...]]:
        """Claim, as a worker does."""
        return self.claim.claimed(self.stopping, self.waits_for.append, self.lost.append)


def a_worker(
    aclient: redis.asyncio.Redis, server: EmbeddedServer, name: str, options: SliceOptions, lease_s: float = 30.0
) -> Worker:
    """One that renews every 50 ms."""
    address = RedisAddress(server.url)
    return Worker(SliceClaim(aclient, address, name, options, lease_s=lease_s, heartbeat_s=0.05))


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is sure to come."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_slices_are_disjoint_and_visible_to_cuda(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """Each worker has its own GPUs, those that NVLink joins; the engine will see these only."""
    options = SliceOptions(2, imagine(f"{FOUR};GPU-0-GPU-3"))
    async with a_worker(aclient, redis_server, "one", options).hold() as one:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-3"
        async with a_worker(aclient, redis_server, "two", options).hold() as two:
            assert (one, two) == (("GPU-0", "GPU-3"), ("GPU-1", "GPU-2"))
    assert not await aclient.keys("*")


async def test_a_lease_outlives_its_length_while_its_worker_lives(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """An engine may take minutes to boot; its GPUs stay its worker's."""
    async with a_worker(aclient, redis_server, "one", SliceOptions(4, imagine(FOUR)), lease_s=2.0).hold() as gpus:
        await asyncio.sleep(3.0)
        assert await aclient.mget([KEYS.gpu(gpu) for gpu in gpus]) == [b"one"] * 4


async def test_a_cancellation_that_is_swallowed_keeps_nobody_from_giving_back(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's `wait_for`, by which redis-py sends, swallows one that comes as it is done."""

    async def stubborn(*_: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    worker = a_worker(aclient, redis_server, "one", SliceOptions(4, imagine(FOUR)))
    monkeypatch.setattr(worker.claim, "_keep", stubborn)
    async with asyncio.timeout(PATIENCE_S), worker.hold() as gpus:
        await asyncio.sleep(0)  # It has begun.

    assert await aclient.mget([KEYS.gpu(gpu) for gpu in gpus]) == [None] * 4


async def test_who_stands_by_comes_before_who_has_just_started(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """A dead worker's successor, started again at once, still has to import its engine; a spare has done so."""
    options = SliceOptions(1, imagine("GPU-0"))
    spare = a_worker(aclient, redis_server, "host-spare", options)
    successor = SliceClaim(
        aclient, RedisAddress(redis_server.url), "host-successor", options, lease_s=30.0, heartbeat_s=PATIENCE_S
    )
    # Names and reports that are none are in nobody's way.
    await aclient.zadd(KEYS.workers, {b"host-\xff": 0})
    await aclient.zadd(KEYS.workers, {"host-spare": 0, "host-odd": 0})
    await aclient.set(KEYS.worker("host-odd"), "no report")
    await aclient.hset(KEYS.worker("host-spare"), "state", "standby")

    late = asyncio.create_task(Worker(successor).hold().__aenter__())
    # It has looked around, and sleeps for a heartbeat.
    await asyncio.wait([late], timeout=0.5)
    async with asyncio.timeout(PATIENCE_S), spare.hold() as gpus:
        assert gpus == ("GPU-0",)
    assert not late.done()
    late.cancel()


async def test_who_finds_no_slice_waits_visibly_and_takes_the_first(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """All or none: one free GPU of two is left alone. It says what it waits for, once, and that it waits no more."""
    options = SliceOptions(2, imagine("GPU-0,GPU-1,GPU-2"))
    second = a_worker(aclient, redis_server, "two", options)

    async def hold_once() -> tuple[str, ...]:
        async with second.hold() as gpus:
            return gpus

    async with a_worker(aclient, redis_server, "one", options).hold():
        waiting = asyncio.create_task(hold_once())
        await until(lambda: second.waits_for)
        await asyncio.sleep(0.2)
        assert not await aclient.exists(KEYS.gpu("GPU-2"))
    assert await asyncio.wait_for(waiting, PATIENCE_S) == ("GPU-0", "GPU-1")
    assert second.waits_for == ["needs 2 GPUs, 2 of 3 leased", ""]


async def test_a_lapsed_lease_is_taken_over_only_once_the_gpu_is_empty(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """A worker that is cut off from Redis loses its lease, but its engine is still on the GPUs."""
    gpus = OccupiedGpus(("GPU-0", "GPU-1"), {"GPU-1"})
    worker = a_worker(aclient, redis_server, "two", SliceOptions(2, gpus))

    async def hold_once() -> tuple[str, ...]:
        async with worker.hold() as held:
            return held

    await aclient.set(KEYS.gpu("GPU-0"), "one", px=200)
    waiting = asyncio.create_task(hold_once())
    await until(lambda: worker.waits_for[-1:] == ["needs 2 GPUs, 0 of 2 leased, 1 in use by processes without a lease"])
    gpus.by_processes.clear()
    assert await asyncio.wait_for(waiting, PATIENCE_S) == ("GPU-0", "GPU-1")


async def test_of_many_workers_at_once_no_two_get_the_same(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """Five workers of two GPUs start together on eight: four have disjoint slices at once, the fifth stands by."""
    options = SliceOptions(2, imagine(EIGHT))
    workers = [a_worker(aclient, redis_server, f"w{number}", options) for number in range(5)]
    held: list[tuple[str, ...]] = []

    async def work(worker: Worker) -> None:
        async with worker.hold() as gpus:
            held.append(gpus)
            await worker.stopping.wait()

    tasks = [asyncio.create_task(work(worker)) for worker in workers]
    await until(lambda: len(held) == 4 and any(worker.waits_for for worker in workers))
    assert sorted(gpu for gpus in held for gpu in gpus) == EIGHT.split(",")
    assert [worker.waits_for for worker in workers if worker.waits_for] == [["needs 2 GPUs, 8 of 8 leased"]]
    for worker in workers:
        worker.stopping.set()
    await asyncio.gather(*tasks)


async def test_who_is_told_to_stop_while_it_waits_holds_nothing(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """Scaling down reaches a worker in standby too, at once."""
    options = SliceOptions(1, imagine("GPU-0"))
    second = a_worker(aclient, redis_server, "two", options)
    async with a_worker(aclient, redis_server, "one", options).hold():
        asyncio.get_running_loop().call_later(0.1, second.stopping.set)
        async with second.hold() as gpus:
            assert gpus == ()
        assert await aclient.get(KEYS.gpu("GPU-0")) == b"one"


async def test_a_worker_hears_that_another_has_its_gpus(
    aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """And leaves the other's lease alone when it goes."""
    worker = a_worker(aclient, redis_server, "one", SliceOptions(1, imagine("GPU-0")))
    async with worker.hold():
        await aclient.set(KEYS.gpu("GPU-0"), "two")
        await until(lambda: worker.lost)
    assert "another worker" in str(worker.lost[0])
    assert await aclient.get(KEYS.gpu("GPU-0")) == b"two"


async def test_a_slice_that_can_never_be_is_refused(aclient: redis.asyncio.Redis, redis_server: EmbeddedServer) -> None:
    """Waiting would not help; both numbers are named."""
    options = SliceOptions(16, imagine(EIGHT), "tensor_parallel_size 8 x pipeline_parallel_size 2")
    with pytest.raises(
        EngineBootError, match=r"needs 16 GPUs \(tensor_parallel_size 8 x pipeline_parallel_size 2\).* 8;"
    ):
        async with a_worker(aclient, redis_server, "one", options).hold():
            pass


def workers_by_state(client: redis.Redis) -> dict[str, list[dict[str, Any]]]:
    """What `batchfleet status` shows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for worker in read_status(client, KEYS).as_dict()["workers"]:
        found.setdefault(worker["state"], []).append(worker)
    return found


def test_a_killed_workers_gpus_go_to_the_one_that_waits(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    """Whole processes: two hold the four GPUs, the third stands by and says so; one is killed.

    The third runs on its GPUs.
    """
    environ = {"BATCHFLEET_GPUS": FOUR, VLLM_ARGS: "{tensor_parallel_size: 2}"}
    with Processes(redis_server.url, tmp_path, environ) as processes:
        processes.worker("one")
        processes.worker("two")
        wait_until(lambda: len(workers_by_state(client).get("running", [])) == 2, "two workers run")
        processes.worker("three")
        wait_until(lambda: len(workers_by_state(client).get("standby", [])) == 1, "the third stands by")
        wait_until(lambda: "standby: needs 2 GPUs, 4 of 4 leased" in processes.log("three"), "it says so")
        assert health_problem(client, KEYS, socket.gethostname(), patience_s=PATIENCE_S) is None
        assert sorted(gpu for worker in workers_by_state(client)["running"] for gpu in worker["gpus"]) == FOUR.split(
            ","
        )

        processes.kill("one")
        wait_until(
            lambda: "has leased 2 GPUs" in processes.log("three") and not workers_by_state(client).get("standby"),
            "it takes over",
        )
        for name in ("two", "three"):
            processes.kill(name, signal.SIGTERM)
            assert processes.finish(name) == 0
        assert not client.keys("batchfleet:gpu:*")


def test_a_worker_that_needs_too_many_gpus_says_so_and_ends(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """One line, both numbers, exit code 2: nothing that restarting it would mend."""
    with Processes(
        redis_server.url, tmp_path, {"BATCHFLEET_GPUS": EIGHT, VLLM_ARGS: "{tensor_parallel_size: 9}"}
    ) as processes:
        processes.worker("worker")
        assert processes.finish("worker") == 2
        assert "the engine needs 9 GPUs (tensor_parallel_size 9), and this host lets it have 8" in processes.log(
            "worker"
        )


def test_health_is_a_fresh_report_of_a_worker_at_work(client: redis.Redis) -> None:
    """Nothing reported, an old report, and a dead engine are illnesses; another host's worker does not count."""
    time_there: Any = client.time()
    seconds = time_there[0]
    assert health_problem(client, KEYS, "host", patience_s=6) == "no worker or batcher of host reports"
    client.hset(KEYS.worker("host-x-abc"), "state", "running")
    client.zadd(KEYS.workers, {"host-x-abc": 1000 * seconds})
    assert health_problem(client, KEYS, "host", patience_s=6) == "no worker or batcher of host reports"
    assert health_problem(client, KEYS, "host-x", patience_s=6) is None
    client.hset(KEYS.worker("host-x-abc"), "state", "dead")
    assert health_problem(client, KEYS, "host-x", patience_s=6) == "host-x-abc is dead"
    client.zadd(KEYS.workers, {"host-x-abc": 1000 * (seconds - 60)})
    assert "has not reported for" in str(health_problem(client, KEYS, "host-x", patience_s=6))
