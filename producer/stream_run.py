"""A run whose questions come from a program, one by one, and whose records go back to it as they are made.

Two threads serve it: one sends what is in the inbox and waits where the fleet has no room, one receives and tells Redis what was handled. Where
the file of questions can be read again, this keeps the questions that have no record yet.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import redis

from producer.answers.sink import Outlet
from producer.backlog import Backlog, IndexSet, PendingQuestion
from producer.bounded_queue import BoundedQueue
from producer.collector import Collector
from producer.options import ProducerOptions
from producer.retry import RetryUntilAvailable, StoppedError
from producer.sender import CHUNK_BYTES, CHUNK_QUESTIONS, RunBusyError, RunState, Sender
from producer.withdrawals import Withdrawals
from wire.connection import RedisAddress, check_server, connect, translated
from wire.errors import FleetError
from wire.keys import Keys

log = logging.getLogger(__name__)

OPEN_END = -1
"""Number of questions of a run as long as it is not known."""
LOOK_S = 0.25
"""How long a thread waits at most before it looks around; also how often handled records are acknowledged."""
CHECK_S = 2.0
BUSY_RETRY_S = 0.25
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
JOIN_S = 15.0


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What is to be run.

    Attributes:
        run: Its id. Each of its questions names its model.
        fingerprint: What a resumed run must have in common with the first attempt, beside the marks of its questions.
    """

    run: str
    fingerprint: dict[str, str]


class StreamRun:
    """One run, from `start` to `stop`. `inbox` is None where nothing is to be sent: somebody else has, and we collect the records.

    Attributes:
        waiting_for: Why nothing is being accepted now, in words; empty if something is, or nothing waits.
        no_room: Whether that is because of the run's own window.
    """

    def __init__(
        self,
        address: RedisAddress,
        options: ProducerOptions,
        plan: StreamPlan,
        inbox: BoundedQueue[PendingQuestion] | None,
        outlet: Outlet,
    ) -> None:
        self.plan = plan
        self.waiting_for = ""
        self.no_room = False
        self._address = address
        self._options = options
        self._inbox = inbox
        self._outlet = outlet
        self._client = connect(address)
        self._keys = Keys(address.namespace)
        self._sender = Sender(self._client, self._keys, plan.run, plan.fingerprint, OPEN_END, options)
        self._collector = Collector(self._client, self._keys, plan.run, self._sender, options)
        self._backlog = Backlog()
        self._seen = IndexSet()
        self._withdrawals = Withdrawals(self._client, self._keys, plan.run, self._sender)
        self._inherited = 0
        self._first = 0
        self._in_doubt = True
        self._stopping = threading.Event()
        self._persistence = RetryUntilAvailable(address, plan.run, options.patience_s, self._stopping, self._wait_for)
        self._room = threading.Event()
        self._all_sent = threading.Event()
        self._again = threading.Event()
        self._lock = threading.Lock()
        self._ended = False
        self._settled = b""
        self._settle_at = 0.0
        self._renew_at = 0.0
        self._check_at = 0.0
        self._threads: list[threading.Thread] = []

    def open(self) -> RunState:
        """Open the run, or find it again. Waits for a producer that may have died a moment ago.

        Raises:
            RunBusyError: Another living producer collects it.
            UsageError: The run is one of something else.
            QueueUnavailableError: Redis does not answer.
        """
        check_server(self._client, self._address)
        busy_until = time.monotonic() + self._options.lease_s + 1
        while True:
            try:
                with translated(self._address):
                    state = self._sender.open()
            except RunBusyError:
                if time.monotonic() > busy_until:
                    raise
                time.sleep(BUSY_RETRY_S)
            else:
                self._inherited = state.accepted - state.acknowledged
                self._first = state.cursor
                self._backlog.move_to(state.cursor)
                self._in_doubt = False
                return state

    def start(self) -> None:
        """Send and receive from now on."""
        work: list[Callable[[], None]] = [self._receive_all]
        if self._inbox is None:
            self._all_sent.set()
        else:
            work.append(self._send_all)
        # Daemons: a program that forgets to close its fleet must still be able to end.
        self._threads = [
            threading.Thread(target=self._guard, args=(step,), name=f"batchfleet {self.plan.run}", daemon=True)
            for step in work
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send and receive no more, and let another producer have the run. What was accepted is still answered. Returns when it is done."""
        self._end(
            FleetError(
                f"run {self.plan.run} was left before its end; what was accepted is still answered, and can be collected under that id"
            )
        )
        self._stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(JOIN_S)
        if not self._threads:
            self._client.close()

    def fail(self, error: BaseException) -> None:
        """End it because of an error, which whoever waits for records gets."""
        self._end(error)
        self._stop()

    def withdraw(self, index: int) -> None:
        """Nobody wants this record any more: do not send the question, or have the fleet end it. Never waits."""
        if self._backlog.withdraw(index):
            self._withdrawals.add(index)

    @property
    def is_live(self) -> bool:
        """Whether records may still come."""
        return not self._ended

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, and its threads too."""
        return self._ended and not any(thread.is_alive() for thread in self._threads)

    def _wait_for(self, what: str) -> None:
        self.waiting_for = what

    def _stop(self) -> None:
        self._stopping.set()
        self._room.set()
        self._again.set()
        if self._inbox is not None:
            self._inbox.close()

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._again.set()
        self._outlet.finish(error)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (a thread has nobody else to tell)
            self.fail(error)

    # Sending

    def _send_all(self) -> None:
        inbox = self._inbox
        pause_s = FIRST_PAUSE_S
        while inbox is not None and not self._stopping.is_set() and self.is_live:
            if not self._backlog.waits:
                self._backlog.add(inbox.take(self._most, LOOK_S))
                if not self._backlog.waits:
                    if inbox.is_over:
                        self._say_all_is_sent()
                        # Until the last record has come: Redis may lose what it has accepted.
                        self._again.wait(LOOK_S)
                        self._again.clear()
                    continue
            outcome = self._persistence.persist(self._offer)
            if outcome == "cancelled":
                inbox.close()
                self._backlog.drop_waiting()
                self._say_all_is_sent()
                break
            if outcome in {"window", "pending", "share"}:
                # What is taken makes room in our window at once; in the fleet's, whenever.
                self._room.wait(LOOK_S if outcome == "window" else pause_s)
                self._room.clear()
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = FIRST_PAUSE_S

    def _say_all_is_sent(self) -> None:
        if not self._all_sent.is_set():
            self._persistence.persist(lambda: self._sender.end(self._backlog.position))
            self._all_sent.set()

    @property
    def _most(self) -> int:
        # A part of the window: a chunk as large as all of it would wait for the last answer of the chunk before.
        options = self._options
        return min(CHUNK_QUESTIONS, max(1, options.run_window // 4), -(-options.max_pending_questions // 8))

    def _offer(self) -> str:
        if self._in_doubt:
            self._go_by(self._sender.open().cursor)
            self._in_doubt = False
        chunk = self._backlog.chunk(self._most, CHUNK_BYTES)
        if not chunk:
            return "ok"
        # If no reply comes, it may have been accepted or not: ask before anything else.
        self._in_doubt = True
        cursor, until = self._backlog.position, chunk[-1].index + 1
        sent = self._sender.send(cursor, until, [given.asked for given in chunk], "", chunk[-1].mark)
        self._in_doubt = sent.outcome in {"cursor", "gone"}
        if sent.outcome == "ok":
            self._backlog.move_to(until)
        self.no_room = sent.outcome == "window"
        full = f"waits for results to be taken: {self._options.run_window} are accepted and not taken, as many as the window"
        self.waiting_for = full if self.no_room else sent.detail
        return sent.outcome

    # Receiving

    def _receive_all(self) -> None:
        try:
            while not self._stopping.is_set() and not self._is_over():
                if self._outlet.has_room(LOOK_S):
                    self._receive()
                self._settle()
            if not self._stopping.is_set():
                self._end(None)
            while not self._stopping.is_set() and not self._outlet.is_settled(LOOK_S):
                self._settle()
        finally:
            # Whatever happened is more telling than that its aftermath failed too.
            with contextlib.suppress(FleetError, redis.RedisError, OSError), translated(self._address):
                self._acknowledge()
                self._withdrawals.tell()
                self._collector.release()
            self._client.close()

    def _receive(self) -> None:
        entries = self._persistence.persist(lambda: self._collector.receive_entries(LOOK_S), self._collector.restart)
        new = []
        for entry, record in entries:
            # Sent again after Redis came back without its last second; or not ours, and then it must not make us remember 2^60 bits.
            if not self._backlog.may_be(record.index) or not self._seen.add(record.index):
                continue
            if not self._backlog.end(record.index):
                self._inherited -= 1
            self._withdrawals.end(record.index)
            new.append((entry, record))
        if new:
            self._check_at = time.monotonic() + CHECK_S
            self._outlet.put(new)

    def _is_over(self) -> bool:
        waits = self._backlog.open > 0 or self._inherited > 0
        if self._all_sent.is_set() and not waits:
            return True
        if not waits or time.monotonic() < self._check_at:
            return False
        # Silence. What Redis has lost, and what was delivered long ago, would be waited for without end.
        self._check_at = time.monotonic() + CHECK_S
        position = self._backlog.position
        state = self._persistence.persist(self._sender.open)
        if state.cursor < position:
            self._go_by(state.cursor)
            return False
        if not self._all_sent.is_set() or self._backlog.waits or state.acknowledged < state.accepted:
            return False
        if self._backlog.open:
            msg = f"{self._backlog.open} questions of run {self.plan.run} have no result, and none will come: somebody took records out of Redis"
            raise FleetError(msg)
        return True

    def _go_by(self, cursor: int) -> None:
        """Believe Redis' cursor. If it has gone back, Redis has lost what it had accepted, and that is to be sent again.

        Raises:
            FleetError: Some of it is not ours to send: an earlier process had, or nobody here has the questions.
        """
        if cursor < self._first and self._inherited > 0:
            msg = f"Redis has lost run {self.plan.run}: {self._inherited} questions that were accepted before this process came, and have no result, "
            raise FleetError(msg + "are gone. Ask them again, in another run")
        if cursor < self._backlog.position:
            log.warning("Redis has lost a part of run %s; what has no result is asked again", self.plan.run)
            self._all_sent.clear()
        self._backlog.move_to(cursor)
        self._again.set()

    def _settle(self) -> None:
        if time.monotonic() >= self._settle_at:
            self._persistence.persist(self._acknowledge)
            self._persistence.persist(self._withdrawals.tell)
            self._settle_at = time.monotonic() + LOOK_S

    def _acknowledge(self) -> None:
        """Let Redis drop what was handled, and renew our claim to the run.

        Raises:
            LeaseLostError: Another producer has taken the run over.
        """
        handled = self._outlet.handled
        now = time.monotonic()
        if handled == self._settled and now < self._renew_at:
            return
        if handled:
            self._collector.handled(handled)
        self._collector.acknowledge()
        self._renew_at = now + self._options.lease_s / 3
        if handled != self._settled:
            self._settled = handled
            self._room.set()


def with_window(options: ProducerOptions, window: int | None) -> ProducerOptions:
    """The same options with another bound for one run."""
    return options if window is None else replace(options, run_window=window)
