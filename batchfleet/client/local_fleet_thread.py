"""A whole fleet on this machine, for as long as a client lives."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.local_fleet import LocalFleet
from batchfleet.supervisor.local_plan import LocalPlan
from wire.errors import FleetError

log = logging.getLogger(__name__)

CHECK_S = 0.2


class LocalFleetThread:
    """Starts a fleet, restarts what exits, and stops it all.

    One thread does all of it: the children are told to die with the thread that started them.

    Attributes:
        failure: Why the fleet cannot work any more; None while it can.
        on_failure: Told of it.
    """

    def __init__(self, settings: Settings, engine: str, workers: int) -> None:
        self._settings = settings
        self._plan = LocalPlan.of(settings, os.environ, engine=engine, workers=workers)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name="batchfleet local", daemon=True)
        self.redis_url = ""
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] = lambda _: None

    def start(self) -> None:
        """Return when the first worker takes work.

        Raises:
            FleetError: Something cannot start; with its last words.
        """
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            # Ctrl-C, most likely, while a model loads.
            self.stop()
            raise
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Stop everything; returns when it is gone."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _live(self) -> None:
        try:
            with LocalFleet(self._plan) as fleet:
                self.redis_url = fleet.redis_url
                fleet.wait_until_serving(to_options.redis_address(self._settings, url=fleet.redis_url), self._look)
                self._ready.set()
                while not self._stopping.wait(CHECK_S):
                    fleet.check()
        except _StoppedError:
            self.failure = FleetError("the fleet was stopped before it served")
        except BaseException as error:  # noqa: BLE001 (a thread has nobody else to tell)
            self.failure = error
            self.on_failure(error)
        finally:
            self._ready.set()

    def _look(self, doing: str) -> None:
        log.debug("%s", doing)
        if self._stopping.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """Leads out of the wait for the first worker."""
