"""What the blocking and the asyncio client have in common: one fleet, and the runs that this process has with it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchfleet.admin.control import cancel_run
from batchfleet.client.local_fleet_thread import LocalFleetThread
from batchfleet.client.run_status import RunStatus, read_run
from batchfleet.settings import to_options
from batchfleet.settings.blocks import Raw
from batchfleet.settings.load import load_settings
from batchfleet.settings.schema import Settings
from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from batchfleet.status.served import served_models
from batchfleet.supervisor.state_folder import default_folder, with_running
from producer.answers.sink import Sink
from producer.bounded_queue import BoundedQueue
from producer.sender import RunState
from producer.stream_run import StreamRun, with_window
from producer.stream_source import PendingQuestion
from wire.connection import check_server, connect
from wire.errors import FleetError, UsageError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger("batchfleet")

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

FIRST_WORKER_S = 30.0
WORKER_POLL_S = 0.1

STREAM = "from a program, in their order"
"""What the fingerprint of a run says of its questions, where they are not those of a file.

The run's mark tells which ones they are.
"""

FINGERPRINT = {"questions": STREAM}

ASK_PREFIX = "ask-"
"""What the ids of runs of single questions begin with."""

ConfigLike = str | os.PathLike[str] | Mapping[str, Any] | None
"""A YAML file, or settings by their dotted names, such as `{"stub.step_s": 0.01}`."""


def read_settings(config: ConfigLike, overrides: Mapping[str, object]) -> Settings:
    """Settings from a configuration, the environment and what the program says, which wins.

    Raises:
        UsageError: One line for every problem.
    """
    given = dict(config) if isinstance(config, Mapping) else {}
    path = None if config is None or isinstance(config, Mapping) else Path(config)
    said = {**given, **{key: value for key, value in overrides.items() if value is not None}}
    # A text is read as in the environment, None is nothing said: settings often come from there.
    as_given = {
        key: Raw(value) if isinstance(value, str) else value for key, value in said.items() if value is not None
    }
    return load_settings(path, os.environ, {}, as_given, "Fleet").settings


def reaching_settings(redis: str | None, model: str | None, namespace: str | None, config: ConfigLike) -> Settings:
    """The same for a fleet that is up: where nothing names a Redis, that of this user's `batchfleet up` on this host.

    Raises:
        UsageError: One line for every problem.
    """
    overrides = {"redis.url": redis, "model.generator_settings.model": model, "redis.namespace": namespace}
    return with_running(read_settings(config, overrides), default_folder(os.environ))


class Session:
    """One fleet, as one client knows it. Nothing is sent before it is asked for something."""

    def __init__(self, settings: Settings, local: LocalFleetThread | None = None) -> None:
        self.settings = settings
        self.address = to_options.redis_address(settings, url=local.redis_url if local else None)
        self.keys = Keys(self.address.namespace)
        self.max_question_bytes = to_options.reading_limits(settings).max_question_bytes
        self.sampling = to_options.producer_options(settings).sampling
        self._local = local
        self._lock = threading.Lock()
        self._streams: dict[str, StreamRun] = {}
        self._model: str | None = settings.model_name
        self._patient_until = 0.0
        self.is_closed = False
        if local is not None:
            local.on_failure = self._fail

    def check(self) -> None:
        """Look whether a fleet can live there.

        Raises:
            FleetError: The client is closed, Redis does not answer, or refuses what a fleet needs.
        """
        self.ensure_open()
        with connect(self.address) as client:
            check_server(client, self.address)

    def ensure_open(self) -> None:
        """Refuse to work after the end.

        Raises:
            FleetError: It was closed, or the fleet on this machine ended.
        """
        if self._local is not None and self._local.failure is not None:
            raise self._local.failure
        if self.is_closed:
            raise FleetError("this Fleet is closed; create another")

    @property
    def model(self) -> str | None:
        """The model for questions that name none, as far as it is known."""
        return self._model

    def find_model(self) -> str:
        """The same; if nobody said it, the only one that workers serve.

        Waits a little for the first worker to report, once.

        Raises:
            UsageError: There is none, or more than one.
        """
        self._patient_until = self._patient_until or time.monotonic() + FIRST_WORKER_S
        while self._model is None:
            models = served_models(self.address)
            if len(models) == 1:
                self._model = models[0]
            elif models or time.monotonic() > self._patient_until:
                known = (
                    f"workers serve {', '.join(models)}"
                    if models
                    else f"no worker has reported within {FIRST_WORKER_S:g} s"
                )
                raise UsageError(
                    f"which model should answer? {known}; give model= to the fleet, or a model to the question"
                )
            else:
                time.sleep(WORKER_POLL_S)
        return self._model

    def stream(
        self, run: str, inbox: BoundedQueue[PendingQuestion] | None, sink: Sink, window: int | None = None
    ) -> tuple[StreamRun, RunState]:
        """Open a run that this client serves, and that is to be started.

        One that this client had under the same id is left before.

        Raises:
            FleetError: As `StreamRun.open`; then nothing of it stays.
        """
        self.ensure_open()
        self.leave(run)
        stream = StreamRun(
            self.address, with_window(to_options.producer_options(self.settings), window), run, FINGERPRINT, inbox, sink
        )
        with self._lock:
            # A program that stays up has many runs, one after the other.
            self._streams = {name: other for name, other in self._streams.items() if not other.is_gone} | {run: stream}
        try:
            return stream, stream.open()
        except BaseException:
            self._forget(stream)
            stream.stop()
            raise

    def leave(self, run: str) -> None:
        """Serve a run no more; what was accepted is still answered."""
        with self._lock:
            stream = self._streams.pop(run, None)
        if stream is not None:
            stream.stop()

    def leave_stream(self, stream: StreamRun) -> None:
        """The same, unless the run is served anew by now."""
        self._forget(stream)
        _stop(stream)

    def _forget(self, stream: StreamRun) -> None:
        with self._lock:
            if self._streams.get(stream.plan.run) is stream:
                del self._streams[stream.plan.run]

    def cancel(self, run: str) -> RunStatus:
        """Cancel a run, whoever asked it.

        Raises:
            UsageError: There is no such run.
        """
        with translated(self.address), connect(self.address) as client:
            cancel_run(client, self.keys, run, run_ttl_s=self.settings.limits.run_ttl_s)
            return read_run(client, self.keys, run)

    def run_status(self, run: str) -> RunStatus:
        with translated(self.address), connect(self.address) as client:
            return read_run(client, self.keys, run)

    def status(self) -> FleetStatus:
        """What the fleet is doing."""
        self.ensure_open()
        with translated(self.address), connect(self.address) as client:
            return read_status(client, self.keys)

    def close(self) -> None:
        """Leave all runs, and end a fleet that was started for this client."""
        self.is_closed = True
        with self._lock:
            streams = list(self._streams.values())
            self._streams.clear()
        for stream in streams:
            _stop(stream)
        if self._local is not None:
            self._local.stop()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.fail(error)


def _stop(stream: StreamRun) -> None:
    run = stream.plan.run
    if stream.is_live and not run.startswith(ASK_PREFIX):
        log.warning("left run %s before its end; Fleet.run(%r) resumes it, and its cancel() ends it", run, run)
    stream.stop()


def new_run_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(6)}"


def checked_run_id(run: str) -> str:
    """A run id as it may stand in Redis.

    Raises:
        UsageError: It may not.
    """
    if not _RUN_ID.fullmatch(run):
        raise UsageError(
            f"{run!r} cannot be the id of a run; use 1 to 128 letters, digits, dots, underscores and hyphens, a letter "
            "or digit first"
        )
    return run
