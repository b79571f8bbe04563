"""The one loop of a producer, until every question has its record.

It takes questions out of a source into Redis, and records out of Redis into a sink. A run of a file and a run of a
program differ in where questions come from and records go, and in nothing else. Two threads serve it: one sends, and
waits where there is no room; one receives, and lets Redis forget what was handled. What comes back makes room for what
goes out.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

import redis

from producer.answers.sink import Received, Sink
from producer.collector import Collector
from producer.options import ProducerOptions
from producer.redis_outage import RetryUntilAvailable, StoppedError
from producer.sender import RunBusyError, RunState, Sender
from producer.sender_thread import RunPlan, SenderThread
from producer.stream_source import QuestionSource
from producer.whereabouts import whereabouts
from producer.withdrawals import Withdrawals
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError, LeaseLostError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

WAIT_S = 0.25
"""How long either thread waits at most before it looks around; also how often handled records are acknowledged."""
SETTLE_RECORDS = 4000
"""Records are acknowledged at least this often.

Before that, a crash of the machine costs nothing but sending them again.
"""
CHECK_S = 2.0
"""After so long without a record, while some are awaited, Redis is asked whether it still has the run as we know it."""
QUIET_S = 10.0
"""After so long it is asked where the open questions are."""
LAST_SETTLE_S = 5.0
BUSY_RETRY_S = 0.25


class StuckError(FleetError):
    """Nothing can come any more of the questions that are open: they are gone from Redis, or among the dead letters."""


class RunLoop:
    """Serves one run, from `open` to the last record.

    Args:
        look_around: Called several times a second by the thread that serves, also while Redis is away. What it raises
            ends the run.

    Attributes:
        waiting_for: Why nothing is being accepted now, in words; empty if something is, or nothing waits.
    """

    def __init__(
        self,
        address: RedisAddress,
        options: ProducerOptions,
        plan: RunPlan,
        source: QuestionSource,
        sink: Sink,
        look_around: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self.waiting_for = ""
        self._address = address
        self._options = options
        self._source = source
        self._sink = sink
        self._look_around = look_around
        self._client = connect(address)
        self._keys = keys = Keys(address.namespace)
        self._sender = Sender(self._client, keys, plan.run, plan.fingerprint, plan.questions, options)
        self._collector = Collector(self._client, keys, plan.run, self._sender, options)
        self.withdrawals = Withdrawals(self._client, keys, plan.run, self._sender)
        self._stopping = threading.Event()
        self._retry = RetryUntilAvailable(address, options.patience_s, self._stopping, self._wait_for)
        self._last_retry = RetryUntilAvailable(address, LAST_SETTLE_S, self._stopping, self._wait_for)
        self._sender_thread = SenderThread(
            self._sender, source, plan, options, self._retry, self._stopping, say=self._wait_for, fail=self.fail
        )
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._is_open = False
        self._ended = False
        self._settle_at = self._check_at = self._quiet_since = 0.0
        self._looked_stuck = False

    def open(self) -> RunState:
        """Open the run, or find it again. Waits for a producer that may have died a moment ago.

        Raises:
            RunBusyError: Another living producer collects it.
            UsageError: The run is one of something else.
            QueueUnavailableError: Redis did not answer for `patience_s`.
            StoppedError: We were told to stop.
        """
        busy_until = time.monotonic() + self._options.lease_s + 1
        while True:
            try:
                state = self._retry.persist(self._sender.open, self._look_around)
            except RunBusyError as error:
                if time.monotonic() > busy_until or not self._options.wait_for_room:
                    raise
                self.waiting_for = str(error)
                self._look_around()
                if self._stopping.wait(BUSY_RETRY_S):
                    raise StoppedError from error
            else:
                self.waiting_for = ""
                self._source.begin(state)
                self._is_open = True
                return state

    def serve(self) -> None:
        """Send and receive until every question has its record, and it was handled.

        Raises:
            BaseException: Whatever ended it early; the sink was told of it.
            StoppedError: We were told to stop.
        """
        self._quiet_since = time.monotonic()
        self._check_at = self._quiet_since + CHECK_S
        self._sender_thread.start()
        try:
            self._receive_all()
        except BaseException as error:  # noqa: BLE001 (raised below; the sending thread may have been first)
            self.fail(error)
        self._end_waits()
        if not isinstance(self._error, KeyboardInterrupt):
            self._sender_thread.join()
        self.leave()
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        """End it because of an error, which whoever waits for records gets. Of several, the first counts."""
        with self._lock:
            if not self._ended:
                self._error = error
        self._end(error)
        self._end_waits()

    def leave(self) -> None:
        """Let another producer have the run. What was accepted is still answered."""
        # What happened is more telling than that its aftermath failed too.
        with contextlib.suppress(FleetError, redis.RedisError, OSError), translated(self._address):
            self._settle()
            self._collector.release()
        self._client.close()

    def drain(self) -> None:
        """Take what is there, and wait for nothing. Called by the thread that serves."""
        if not self._is_open:
            return
        with contextlib.suppress(FleetError, redis.RedisError), translated(self._address):
            while entries := self._collector.receive_entries(0.0):
                self._take(entries)

    def forget_delivered(self) -> None:
        """Let Redis forget what it still has of a run whose records an earlier process handled.

        It does so now, and not when the run's time is over.
        """
        with contextlib.suppress(FleetError, redis.RedisError), translated(self._address):
            if self._client.exists(self._keys.records(self.plan.run)):
                self._sender.open()
                self._is_open = True
                self.drain()
                self.leave()
        self._client.close()

    @property
    def no_room(self) -> bool:
        """Whether nothing is accepted because the run's own window is full."""
        return self._sender_thread.no_room

    @property
    def is_live(self) -> bool:
        """Whether records may still come."""
        return not self._ended

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._sink.finish(error)

    def _end_waits(self) -> None:
        self._stopping.set()
        self._sender_thread.wake()
        self._source.close()

    def _wait_for(self, what: str) -> None:
        self.waiting_for = what

    def _receive_all(self) -> None:
        while not self._is_over():
            self._look_around()
            if self._stopping.is_set():
                raise StoppedError
            if self._sink.has_room(WAIT_S):
                if self._sender_thread.read_again:
                    self._restart()
                self._take(self._retry.persist(self._read, self._look_around, self._restart))
            if time.monotonic() >= self._settle_at or self._collector.open_records >= SETTLE_RECORDS:
                self._retry.persist(self._settle, self._look_around)
        self._end(None)
        self._settle_at_last()

    def _read(self) -> list[Received]:
        return self._collector.receive_entries(WAIT_S)

    def _take(self, entries: Sequence[Received]) -> None:
        # What was sent again after Redis came back without its last second is handled already, and there may be
        # garbage.
        new = [(entry, record) for entry, record in entries if self._source.end(record)]
        if new:
            self._quiet_since, self._looked_stuck = time.monotonic(), False
            self._check_at = self._quiet_since + CHECK_S
            self._sink.put(new)
            self.withdrawals.end([record.index for _, record in new])

    def _restart(self) -> None:
        """Read again from the oldest record that Redis has: it may have lost the news that some were handled."""
        self._sender_thread.read_again = False
        self._collector.restart()

    def _settle(self) -> None:
        if self._collector.settle(self._sink):
            self._sender_thread.room_came()
        self.withdrawals.tell()
        self._settle_at = time.monotonic() + WAIT_S

    def _settle_at_last(self) -> None:
        """Let Redis forget the records, now that all are there: worth a few more tries, but not the run."""
        try:
            is_settled = False
            while not is_settled and not self._stopping.is_set():
                is_settled = self._sink.is_settled(WAIT_S)
                (self._last_retry if is_settled else self._retry).persist(self._settle)
        except (QueueUnavailableError, LeaseLostError) as error:
            log.warning("%s; nothing is missing, and Redis keeps its copy until the run's time is over", error)
        except StoppedError:
            pass

    def _is_over(self) -> bool:
        if not self._source.open:
            return self._sender_thread.all_sent.is_set()
        if time.monotonic() < self._check_at:
            return False
        # Silence. What Redis has lost, and what was delivered long ago, would be waited for without end.
        self._check_at = time.monotonic() + CHECK_S
        position = self._source.position
        state = self._retry.persist(self._sender.open, self._look_around)
        if state.cursor < position:
            self._sender_thread.believe(state)
        elif self._sender_thread.all_sent.is_set() and state.acknowledged >= state.accepted:
            self._source.give_up(state.acknowledged)
            return True
        elif time.monotonic() - self._quiet_since > QUIET_S:
            self._check_stuck()
        return False

    def _check_stuck(self) -> None:
        found = whereabouts(self._client, self._keys, self.plan.run, self._sender.epoch)
        if not found.is_stuck:
            self._quiet_since, self._looked_stuck = time.monotonic(), False
        elif not self._looked_stuck:
            self._looked_stuck = True
        else:
            what = "no record" if found.unanswered else "a record that somebody removed from Redis"
            open_, run = self._source.open, self.plan.run
            whose = f"1 question of run {run} has" if open_ == 1 else f"{open_} questions of run {run} have"
            msg = (
                f"{whose} {what}, and nothing of it is queued, in a batch or with a worker any more. "
                "`batchfleet dead list` may say why; "
            )
            raise StuckError(msg + self._source.how_to_ask_again)
