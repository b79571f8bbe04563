"""Looks at the fleet now and then while a run is on, beside the thread that submits and collects."""

from __future__ import annotations

import threading
import time

import redis

from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

STATUS_EVERY_S = 1.0


class StatusPoller:
    """The latest look; used in a `with` statement.

    Attributes:
        status: None before the first look, and while Redis does not answer.
        gpu_s: Seconds times GPUs that workers held since the first look, whatever they were used for.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, name="glance", daemon=True)
        self.status: FleetStatus | None = None
        self.gpu_s = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The last look may still be on its way; nothing waits for it."""
        self._stopping.set()

    def _look_again_and_again(self) -> None:
        looked_at = time.monotonic()
        with connect(self._address) as client:
            while not self._stopping.is_set():
                self.status = self._look(client)
                now = time.monotonic()
                if self.status is not None:
                    self.gpu_s += (now - looked_at) * sum(len(worker.gpus) for worker in self.status.workers)
                looked_at = now
                self._stopping.wait(STATUS_EVERY_S)

    def _look(self, client: redis.Redis) -> FleetStatus | None:
        try:
            with translated(self._address):
                return read_status(client, Keys(self._address.namespace))
        except (FleetError, redis.RedisError):
            # The run itself says what is wrong with Redis.
            return None
