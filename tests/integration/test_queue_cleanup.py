"""What nothing else ends: queues of models that were tried once, and questions that are counted and are nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.housekeeping import Housekeeping
from batcher.maintenance.queue_cleanup import QueueCleanup
from batcher.options import BatcherOptions, BatchLimits
from batcher.packing import Waiting
from batcher.stream_reader import StreamReader
from batchfleet.admin.forget import forget_run
from tests.submissions import KEYS, ROOMY, Submitter

QUEUE = ("stub", 0)


@pytest.fixture
def inbox(client: redis.Redis) -> StreamReader:
    """That of a batcher that leads."""
    made = StreamReader(client, KEYS, batch_questions=4, max_question_bytes=1_000_000, max_queues=10)
    made.restart()
    return made


def take_out(client: redis.Redis, inbox: StreamReader) -> None:
    """All questions leave the stream, answered or not."""
    entries: Any = client.xrange(KEYS.questions(*QUEUE))
    taken = [entry_id for entry_id, _ in entries]
    client.xdel(KEYS.questions(*QUEUE), *taken)
    inbox.forget(QUEUE, taken)


def test_a_queue_that_has_long_been_empty_makes_room_for_another(client: redis.Redis, inbox: StreamReader) -> None:
    """Who evaluates a new checkpoint every day reaches `limits.max_models` some day.

    A queue that comes back is read from its start.
    """
    options = replace(ROOMY, max_models=1)
    assert Submitter(client, "first", 1, options).offer(1).outcome == "ok"
    inbox.find_queues()
    inbox.read(0.0)
    take_out(client, inbox)

    QueueCleanup(client, KEYS, inbox).tidy(idle_s=3600.0)
    assert client.exists(KEYS.questions(*QUEUE))
    QueueCleanup(client, KEYS, inbox).tidy(idle_s=0.0)

    assert not client.exists(KEYS.questions(*QUEUE), KEYS.queues)
    assert Submitter(client, "second", 1, options).offer(1, priority=3).outcome == "ok"
    inbox.read(0.0)
    inbox.read(0.0)
    assert [queue for queue, waiting in inbox.waiting.items() if waiting] == [("stub", 3)]


def test_a_queue_of_which_a_batch_is_left_stays(client: redis.Redis, inbox: StreamReader) -> None:
    """By the names of queues the batcher knows for which models it has to look after leases."""
    Submitter(client, "run", 1).offer(1)
    inbox.find_queues()
    leadership = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
    leadership.hold()
    entries: Any = client.xrange(KEYS.questions(*QUEUE))
    HandOver(client, KEYS, leadership).commit(
        *QUEUE, [[Waiting(entry_id, fields[b"q"], 0.0) for entry_id, fields in entries]]
    )
    batch: Any = client.lindex(KEYS.rq_queue("stub"), 0)

    places: list[Callable[[], object]] = [
        lambda: None,
        lambda: client.zadd(KEYS.leases("stub"), {batch: 1}),
        lambda: client.lpush(KEYS.suspects("stub"), batch),
        lambda: client.lpush(KEYS.isolated("stub"), batch),
        lambda: client.zadd(KEYS.newer("stub"), {batch: 2}),
    ]
    for put in places:
        put()
        QueueCleanup(client, KEYS, inbox).tidy(idle_s=0.0)
        client.delete(
            KEYS.rq_queue("stub"), KEYS.leases("stub"), KEYS.suspects("stub"), KEYS.isolated("stub"), KEYS.newer("stub")
        )
        assert client.scard(KEYS.queues) == 1
        assert client.hget(KEYS.pending, "questions") == b"1"


def test_what_is_nowhere_is_not_pending(client: redis.Redis, inbox: StreamReader) -> None:
    """A run that was forgotten and is asked anew is in the fleet twice, and ends once.

    Some day nothing more would be accepted.
    """
    for _ in range(2):
        Submitter(client, "run", 5).offer(5)
        client.delete(KEYS.producer("run"))
        forget_run(client, KEYS, "run")
    inbox.find_queues()
    QueueCleanup(client, KEYS, inbox).tidy()
    assert client.hget(KEYS.pending, "questions") == b"10"

    take_out(client, inbox)
    QueueCleanup(client, KEYS, inbox).tidy()

    assert client.hmget(KEYS.pending, "questions", "bytes") == [b"0", b"0"]


def test_runs_that_are_gone_are_forgotten_behind_those_that_live(client: redis.Redis, inbox: StreamReader) -> None:
    """A hundred programs that stay up and ask nothing keep the oldest runs.

    The others of a month must not gather behind them.
    """
    client.zadd(KEYS.runs, {f"run-{number}": number for number in range(300)})
    for number in range(150):
        client.hset(KEYS.run(f"run-{number}"), "cursor", 0)
    leadership = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
    keeper = Housekeeping(client, KEYS, leadership, BatcherOptions(BatchLimits(4)), inbox)

    for _ in range(4):
        keeper._runs_at = 0.0
        keeper._forget_expired_runs()

    assert client.zcard(KEYS.runs) == 150
