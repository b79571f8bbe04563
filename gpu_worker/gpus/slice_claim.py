"""A worker's claim to its slice: leases in Redis, until its engine has ended.

Compose gives every replica of a scaled service the same GPUs, and so does a host without containers: who uses which is
settled in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import redis
import redis.asyncio

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.gpus.devices import VISIBLE
from gpu_worker.gpus.slices import SliceOptions, choose
from wire.address import RedisAddress
from wire.errors import EngineBootError, EngineDeadError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated
from wire.scripts import load_script

log = logging.getLogger(__name__)

MOST_LEASES = 10
"""A claim never has longer to live than so many of our leases, unless workers are set up very differently."""
DEFERENCE_HEARTBEATS = 3
"""How long a worker that has just started leaves free GPUs to those that stood by before it."""
RELEASE_S = 2.0
"""How long a worker that leaves tries to give back its GPUs; then their leases lapse."""


def end_leases(client: redis.Redis, keys: Keys, worker: str, gpus: Sequence[str]) -> None:
    """End those of a worker whose process is known to have ended, instead of waiting until they lapse.

    Whatever its engine left on the GPUs still keeps the next worker away from them, until it is gone.
    """
    release = client.register_script(load_script("gpu_worker.gpus", "slice_release"))
    release(keys=[keys.gpu(gpu) for gpu in gpus], args=[worker])


class SliceClaim:
    """One worker's claim to a slice.

    Args:
        worker: Unique for ever, so that a lease can be told from that of a predecessor.
        lease_s: How long the GPUs stay ours without being renewed.
        heartbeat_s: How often they are renewed and, while there is no free slice, looked for.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        address: RedisAddress,
        worker: str,
        options: SliceOptions,
        *,
        lease_s: float,
        heartbeat_s: float,
    ) -> None:
        self._client = client
        self._address = address
        self._keys = Keys(address.namespace)
        self._worker = worker
        self._options = options
        self._lease_ms = int(1000 * lease_s)
        self._heartbeat_s = heartbeat_s
        self._claim = client.register_script(load_script("gpu_worker.gpus", "slice_claim"))
        self._release = client.register_script(load_script("gpu_worker.gpus", "slice_release"))
        self._waits_for = ""

    @contextlib.asynccontextmanager
    async def claimed(
        self, stopping: asyncio.Event, stand_by: Callable[[str], None], lose: Callable[[EngineDeadError], None]
    ) -> AsyncIterator[tuple[str, ...]]:
        """Hold a slice, from when there is one until the end of the block.

        The engine belongs inside, from its start to its end. On entry the environment's CUDA_VISIBLE_DEVICES names the
        slice. Nothing is held, and nothing set, if none is needed or `stopping` was set before there was one.

        Args:
            stand_by: Told what is waited for, whenever that changes; "" once nothing is.
            lose: Told, inside of the block, if another worker has our GPUs. Their processes would be in each other's
                way.

        Raises:
            EngineBootError: No such slice can ever be had here.
        """
        gpus = await self._wait_for_slice(stopping, stand_by)
        if not gpus:
            yield ()
            return
        os.environ[VISIBLE] = ",".join(gpus)
        log.info("worker %s has leased %d GPUs: %s", self._worker, len(gpus), ", ".join(gpus))
        renewing = asyncio.create_task(self._keep(gpus, lose))
        try:
            yield gpus
        finally:
            await cancel_and_wait([renewing])
            await self._give_back(gpus)

    async def _wait_for_slice(self, stopping: asyncio.Event, stand_by: Callable[[str], None]) -> tuple[str, ...]:
        count, present = self._options.count, len(self._options.gpus.uuids)
        if not count or not present:
            return ()
        if count > present:
            why = f" ({self._options.why})" if self._options.why else ""
            raise EngineBootError(
                f"the engine needs {_gpus(count)}{why}, and this host lets it have {present}; lower "
                "tensor_parallel_size or use a larger host"
            )
        # They have prepared their engines meanwhile. One that needs more GPUs than are free may wait for long, though.
        defers_until = asyncio.get_running_loop().time() + DEFERENCE_HEARTBEATS * self._heartbeat_s
        while not stopping.is_set():
            try:
                with translated(self._address):
                    is_early = not self._waits_for and asyncio.get_running_loop().time() < defers_until
                    gpus, waits_for = ((), "") if is_early and await self._others_stand_by() else await self._look()
            except QueueUnavailableError as error:
                gpus, waits_for = (), str(error)
            self._tell(waits_for, stand_by)
            if gpus:
                return gpus
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._heartbeat_s)
        return ()

    def _tell(self, waits_for: str, stand_by: Callable[[str], None]) -> None:
        if waits_for == self._waits_for:
            return
        self._waits_for = waits_for
        stand_by(waits_for)
        if waits_for:
            log.warning("standby: %s", waits_for)

    async def _look(self) -> tuple[tuple[str, ...], str]:
        """A slice, now ours; or none, and why."""
        count, host = self._options.count, self._options.gpus
        # In a thread: NVML may take its time, and what else happens here must not wait for it.
        occupied = await asyncio.to_thread(host.occupied)
        while True:
            leased = await self._leased()
            # A lease that lapsed says nothing of the processes: those of a worker that was cut off may still be there,
            # and so may anybody else's.
            chosen = choose([gpu for gpu in host.uuids if gpu not in leased and gpu not in occupied], host.links, count)
            if not chosen:
                break
            if await self._claim(keys=self._names(chosen), args=[self._worker, self._lease_ms]):
                return chosen, ""
            # Another worker was quicker, so there are fewer to choose from now: this ends.
        busy = len(occupied - leased)
        others = f", {busy} in use by processes without a lease" if busy else ""
        return (), f"needs {_gpus(count)}, {len(leased)} of {len(host.uuids)} leased{others}"

    async def _others_stand_by(self) -> bool:
        """Whether another worker of this host reports that it waits for GPUs."""
        names: Any = await self._client.zrange(self._keys.workers, 0, -1)
        host = self._worker.rpartition("-")[0]
        others = [name for name in (raw.decode("utf-8", "replace") for raw in names) if name.rpartition("-")[0] == host]
        async with self._client.pipeline(transaction=False) as pipe:
            for name in others:
                pipe.hget(self._keys.worker(name), "state")
            # Something else may be where a report belongs.
            return b"standby" in await pipe.execute(raise_on_error=False)

    async def _leased(self) -> frozenset[str]:
        uuids = self._options.gpus.uuids
        names = self._names(uuids)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.mget(names)
            for name in names:
                pipe.pttl(name)
            holders, *left_ms = await pipe.execute()
        for name, left in zip(names, left_ms, strict=True):
            # No worker's lease is that long: the server's clock was set back. Whoever lives renews it with the next
            # heartbeat.
            if left > MOST_LEASES * self._lease_ms:
                await self._client.pexpire(name, self._lease_ms)
        # Not those that are ours: we may have claimed them without hearing of it.
        return frozenset(
            gpu for gpu, holder in zip(uuids, holders, strict=True) if holder not in {None, self._worker.encode()}
        )

    async def _keep(self, gpus: Sequence[str], lose: Callable[[EngineDeadError], None]) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                with translated(self._address):
                    # Claiming again renews; it also brings back what lapsed meanwhile and nobody took.
                    kept = await self._claim(keys=self._names(gpus), args=[self._worker, self._lease_ms])
            except QueueUnavailableError as error:
                log.warning("the lease of GPUs %s is not renewed: %s", ", ".join(gpus), error)
                continue
            if not kept:
                lose(
                    EngineDeadError(
                        f"the lease of GPUs {', '.join(gpus)} lapsed and another worker has taken some of them"
                    )
                )
                return

    async def _give_back(self, gpus: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(RELEASE_S):
                with translated(self._address):
                    await self._release(keys=self._names(gpus), args=[self._worker])
        except (QueueUnavailableError, TimeoutError) as error:
            log.info("GPUs %s were not given back (%s); their lease will lapse", ", ".join(gpus), error or "timeout")

    def _names(self, gpus: Sequence[str]) -> list[str]:
        return [self._keys.gpu(gpu) for gpu in gpus]


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"
