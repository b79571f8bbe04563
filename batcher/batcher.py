"""The batcher's life: lead or stand by; read, pack, hand over; take back what dead workers held."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import replace

import redis

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.housekeeping import SILENT_HEARTBEATS, Housekeeping
from batcher.options import BatcherOptions
from batcher.packing import Demand, PackingPlan, company_s, look_again_s, most_waiting, plan, room_for, while_gathering
from batcher.stats import HandoverStats
from batcher.stream_reader import QueueId, StreamReader
from wire.address import RedisAddress
from wire.backoff import Backoff
from wire.connection import check_server, connect
from wire.errors import LeaseLostError, QueueDamagedError, QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.25
"""Longest blocking read, so that a batcher that is told to stop does so soon."""

# KEYS[1] hash batchers; KEYS[2] zset workers; ARGV: 1 batcher, 2 its report, 3 TTL of all reports (s). Returns how many
#     workers report.
_TELL = """
-- First of all writes, because Redis refuses a script for want of memory only if its first write takes memory,
-- and a batcher has more to do than this.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('ZCARD', KEYS[2])
"""


class Batcher:
    """One batcher process. `serve` runs in one thread; `stop` may be called from any, and from a signal handler.

    Attributes:
        tally: What it has handed over; may be read from any thread.
        metrics: HOST:PORT where it can be scraped, for its report; empty for nowhere.
    """

    def __init__(self, address: RedisAddress, options: BatcherOptions) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._address = address
        self._options = options
        self._stopping = threading.Event()
        keys = Keys(address.namespace)
        self._keys = keys
        self._client = connect(address)
        self._leadership = Leadership(
            self._client, keys, self.name, lease_s=options.leader_s, renew_s=options.heartbeat_s
        )
        self._inbox = StreamReader(
            self._client,
            keys,
            batch_questions=options.limits.max_questions,
            max_question_bytes=options.max_question_bytes,
            max_queues=options.max_queues,
            group_prefixes=options.group_prefixes,
        )
        self._hand_over = HandOver(self._client, keys, self._leadership)
        self._housekeeping = Housekeeping(self._client, keys, self._leadership, options, self._inbox)
        self._tell = self._client.register_script(_TELL)
        self._next_heartbeat = 0.0
        self._left: dict[str, tuple[int, float]] = {}
        """How many batch jobs of each model waited after the last hand-over, and when that was."""
        self._workers = 0
        self.tally = HandoverStats(options.limits)
        self.metrics = ""

    @property
    def leads(self) -> bool:
        """Whether it believes to lead."""
        return self._leadership.held

    def stop(self) -> None:
        self._stopping.set()

    def serve(self) -> None:
        """Work until `stop` is called; then let a standby lead at once.

        Raises:
            QueueUnusableError: Redis answers, but a fleet cannot live there.
        """
        backoff = Backoff(first_s=0.05)
        checked = damaged = False
        while not self._stopping.is_set():
            try:
                if not checked:
                    check_server(self._client, self._address, wait_for_primary=True)
                    checked = True
                with translated(self._address):
                    if damaged:
                        self._housekeeping.mend()
                        damaged = False
                    self._lead_or_stand_by()
                backoff.reset()
            except LeaseLostError as error:
                log.warning("%s; standing by", error)
            except QueueUnavailableError as error:
                pause_s = backoff.next_s()
                log.warning("%s; trying again in %.1f s", error, pause_s)
                damaged = isinstance(error, QueueDamagedError)
                # A hand-over may have happened without our hearing of it: believe only what Redis holds.
                self._leadership.drop()
                self._stopping.wait(pause_s)
        self._leave()

    def _lead_or_stand_by(self) -> None:
        if self._leadership.hold():
            log.info("batcher %s leads", self.name)
            self._inbox.restart()
            self._housekeeping.restart()
        self._report()
        if not self._leadership.held:
            self._stopping.wait(self._options.heartbeat_s)
            return
        if self._inbox.unreadable:
            self._housekeeping.put_aside(self._inbox.unreadable)
            self._inbox.unreadable.clear()
        look, self._inbox.cancelled = self._inbox.cancelled, False
        more = self._housekeeping.end_unwanted(self._inbox.waiting, look=look)
        wait_s = self._work()
        if more:
            wait_s = 0.0
        self._inbox.read(min(wait_s, max(self._next_heartbeat - time.monotonic(), 0.001)))

    def _work(self) -> float:
        """Hand over what is due; return for how long nothing will be, in seconds, if nothing comes."""
        wait_s = IDLE_WAIT_S
        queues = [queue for queue, line in self._inbox.waiting.items() if line]
        demand = self._demand({model for model, _ in queues})
        for queue in sorted(queues, key=lambda queue: -queue[1]):
            model, priority = queue
            todo = self._plan(queue, demand[model])
            if todo.batches:
                line = self._inbox.waiting[queue]
                waiting_batches = self._hand_over.commit(
                    model, priority, todo.batches, [line.newest(batch) for batch in todo.batches]
                )
                self.tally.add(model, todo.batches)
                line.drop([question for batch in todo.batches for question in batch])
                demand[model] = replace(demand[model], waiting_batches=waiting_batches)
                self._left[model] = (waiting_batches, time.monotonic())
                # What became of the rest depends on what is there now.
                wait_s = min(wait_s, 0.0 if line and todo.recheck_s is None else wait_s)
            if todo.recheck_s is not None:
                wait_s = min(wait_s, todo.recheck_s)
        return wait_s

    def _plan(self, queue: QueueId, demand: Demand) -> PackingPlan:
        options, priority, now = self._options, queue[1], time.monotonic()
        room = room_for(demand, options, priority)
        since = self._inbox.gathers_since(queue, room * options.limits.max_questions)
        if since is not None and now < since + company_s(options, priority):
            demand, options = while_gathering(demand, options)
        room = room_for(demand, options, priority)
        if room <= 0:
            return PackingPlan(recheck_s=demand.look_again_s)
        # What is not asked for is not put in order yet. A batch more shows where the last should end.
        waiting = self._inbox.front(queue, (room + 1) * options.limits.max_questions)
        more = len(waiting) < len(self._inbox.waiting[queue])
        return plan(waiting, demand, options, now, priority, more=more)

    def _demand(self, models: set[str]) -> dict[str, Demand]:
        if not models:
            return {}
        names = sorted(models)
        with self._client.pipeline(transaction=False) as pipe:
            for model in names:
                pipe.llen(self._keys.rq_queue(model))
                pipe.zcard(self._keys.hungry(model))
            found = pipe.execute()
        return {model: self._demand_of(model, found[2 * i], found[2 * i + 1]) for i, model in enumerate(names)}

    def _demand_of(self, model: str, waiting_batches: int, hungry: int) -> Demand:
        now = time.monotonic()
        slots = most_waiting(self._options.max_waiting_batches, 0, self._workers)
        left, since = self._left.get(model, (waiting_batches, now))
        return Demand(waiting_batches, hungry, self._workers, look_again_s(slots, left - waiting_batches, now - since))

    def _report(self) -> None:
        if time.monotonic() < self._next_heartbeat:
            return
        self._next_heartbeat = time.monotonic() + self._options.heartbeat_s
        seconds, micros = self._client.time()
        report = {
            "clock_ahead_s": round(time.time() - seconds - micros / 1e6, 1),
            "state": "leading" if self._leadership.held else "standby",
            "at": time.time(),
            "batch_size": self._options.limits.max_questions,
            "metrics": self.metrics,
            "scaled_models": self._options.scaled_models,
            **self.tally.as_dict(),
        }
        lives_s = int(SILENT_HEARTBEATS * self._options.heartbeat_s) + 1
        self._workers = self._tell(
            keys=[self._keys.batchers, self._keys.workers], args=[self.name, json.dumps(report), lives_s]
        )
        if self._leadership.held:
            self._inbox.find_queues()
            self._housekeeping.tend(self._inbox.waiting)
        self.tally.taken_back = self._housekeeping.taken_back

    def _leave(self) -> None:
        try:
            with translated(self._address):
                self._leadership.release()
                self._client.hdel(self._keys.batchers, self.name)
        except (QueueUnavailableError, redis.RedisError) as error:
            log.info("deregistration failed: %s", error)
        self._client.close()
