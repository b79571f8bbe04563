"""Queued questions that nobody wants end without a worker, wherever they lie, and nothing else does.

On a real Redis.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import pytest
import redis

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.expiry import ExpirySweep
from batcher.maintenance.unwanted import EXPIRED
from batcher.packing import Waiting
from batcher.stream_reader import QueueId, StreamReader
from batchfleet.admin.control import cancel_run
from batchfleet.admin.forget import forget_run
from batchfleet.runs.ledger import read_ledger
from tests.builders import epoch_of
from tests.submissions import KEYS, accept
from wire.codec import decode_batch, decode_question, decode_record
from wire.keys import run_member

QUEUE: QueueId = ("stub", 0)
PAST, LATER = -10.0, 3600.0


class Leader:
    """What a leading batcher has, without its loop."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.leadership = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
        self.leadership.hold()
        self.inbox = StreamReader(client, KEYS, batch_questions=4, max_question_bytes=1_000_000, max_queues=10)
        self.inbox.restart()
        self.hand_over = HandOver(client, KEYS, self.leadership)
        self.forgotten: set[bytes] = set()
        self.ending = ExpirySweep(client, KEYS, self.leadership, run_ttl_s=600, forget=self._forget)

    def hand_out(self, count: int, priority: int = 0) -> None:
        """Make a batch of the first questions."""
        entries: Any = self.client.xrange(KEYS.questions("stub", priority), count=count)
        self.hand_over.commit(
            "stub", priority, [[Waiting(entry_id, fields[b"q"], 0.0) for entry_id, fields in entries]]
        )

    def end_unwanted(self) -> None:
        """Look, and do all there is to do."""
        self.ending.look([QUEUE])
        while self.ending.go_on(0.001):
            pass

    def _forget(self, queue: QueueId, entry_ids: Collection[bytes]) -> None:
        self.inbox.forget(queue, entry_ids)
        self.forgotten.update(entry_ids)


@pytest.fixture
def leader(client: redis.Redis) -> Leader:
    """A batcher that leads."""
    return Leader(client)


def outcomes(client: redis.Redis, run: str) -> dict[int, str]:
    """Kind of failure of each question that has a record."""
    entries: Any = client.xrange(KEYS.records(run))
    records = [decode_record(fields[b"a"]) for _, fields in entries]
    assert len({record.index for record in records}) == len(records)
    return {record.index: record.error.kind for record in records if record.status == "failed"}


def waiting_jobs(client: redis.Redis) -> list[list[int]]:
    """Indices of the questions in each batch that waits, in the order of the queue."""
    ids: Any = client.lrange(KEYS.rq_queue("stub"), 0, -1)
    found = []
    for batch_id in ids:
        data: Any = client.hget(f"rq:job:{batch_id.decode()}", "data")
        found.append([decode_question(question).index for question in decode_batch(data)])
    return found


def test_a_question_past_its_deadline_ends_in_the_stream(client: redis.Redis, leader: Leader) -> None:
    """Nobody has to take it, so that a run ends although no worker lives; what has time left stays."""
    accept(client, "late", [PAST, None, LATER, PAST])

    leader.end_unwanted()

    assert outcomes(client, "late") == {0: "expired", 3: "expired"}
    assert client.xlen(KEYS.questions("stub", 0)) == 2
    assert client.hget(KEYS.pending, "questions") == b"2"


def test_a_question_past_its_deadline_ends_in_a_batch_that_waits(client: redis.Redis, leader: Leader) -> None:
    """The batch continues without it; one that has nothing left is gone."""
    accept(client, "late", [PAST, LATER, PAST, PAST])
    leader.hand_out(2)
    leader.hand_out(2)

    leader.end_unwanted()
    leader.end_unwanted()

    assert outcomes(client, "late") == {0: "expired", 2: "expired", 3: "expired"}
    assert waiting_jobs(client) == [[1]]
    assert client.hget(KEYS.run("late"), "regenerated") == b"0"
    assert len(client.keys("rq:job:*")) == 1


def test_a_question_past_its_deadline_ends_in_a_batch_that_is_to_run_alone(client: redis.Redis, leader: Leader) -> None:
    """What is suspected of killing engines may wait for long until somebody dares; its deadline counts all the same."""
    accept(client, "late", [PAST, LATER])
    leader.hand_out(2)
    client.rpoplpush(KEYS.rq_queue("stub"), KEYS.isolated("stub"))

    leader.end_unwanted()

    assert outcomes(client, "late") == {0: "expired"}
    assert client.llen(KEYS.isolated("stub")) == 1


def test_a_batch_that_a_worker_holds_is_left_to_it(client: redis.Redis, leader: Leader) -> None:
    """Its worker ends what is too late; should it die, its deadlines are still known."""
    accept(client, "late", [PAST, LATER])
    leader.hand_out(2)
    batch: Any = client.lpop(KEYS.rq_queue("stub"))
    client.hset(f"rq:job:{batch.decode()}", "lease_token", "its")
    client.zadd(KEYS.leases("stub"), {batch: time.time() * 1000 + 60_000})

    leader.end_unwanted()

    assert outcomes(client, "late") == {}
    marked: Any = client.zscore(KEYS.expiring, "stub:0")
    assert time.time() < marked < time.time() + LATER


def test_a_batch_that_was_claimed_during_the_look_is_not_changed(client: redis.Redis, leader: Leader) -> None:
    """Its worker has it whole, and its job is what another one gets should that worker die."""
    accept(client, "late", [PAST, LATER])
    leader.hand_out(2)
    batch: Any = client.lpop(KEYS.rq_queue("stub"))
    job = f"rq:job:{batch.decode()}"
    client.hset(job, "lease_token", "its")
    before: Any = client.hgetall(job)

    question = decode_question(decode_batch(before[b"data"])[0])
    leader.ending._end_in_batch(KEYS.rq_queue("stub"), batch.decode(), [(question, 100, EXPIRED)], [])

    assert client.hgetall(job) == before
    assert outcomes(client, "late") == {0: "expired"}


def test_deadlines_are_looked_for_only_when_one_has_passed(client: redis.Redis, leader: Leader) -> None:
    """The earliest that is left is the next time to look, and with none left there is nothing to look for."""
    accept(client, "mixed", [PAST, LATER, None])

    leader.end_unwanted()
    marked: Any = client.zscore(KEYS.expiring, "stub:0")
    client.delete(KEYS.questions("stub", 0))
    client.zadd(KEYS.expiring, {"stub:0": 1.0})
    leader.ending.restart()
    leader.end_unwanted()

    assert time.time() + LATER - 60 < marked < time.time() + LATER + 60
    assert client.zscore(KEYS.expiring, "stub:0") is None


def test_a_deadline_that_is_submitted_during_the_look_is_not_forgotten(client: redis.Redis, leader: Leader) -> None:
    """It is marked by whoever submits it, whatever the look found before."""
    accept(client, "first", [PAST])
    leader.ending.look([QUEUE])
    assert leader.ending.go_on(0.0)
    next(leader.ending._walk)  # type: ignore[arg-type]
    accept(client, "second", [LATER])
    leader.end_unwanted()

    marked: Any = client.zscore(KEYS.expiring, "stub:0")
    assert marked is not None
    assert time.time() < marked < float("inf")


def test_a_new_leader_looks_for_what_the_last_one_left_half_way(client: redis.Redis, leader: Leader) -> None:
    """A batcher that died while it looked has marked the queue as seen, and has not seen it."""
    accept(client, "late", [PAST])
    client.zadd(KEYS.expiring, {"stub:0": float("inf")})

    leader.ending.restart()
    leader.end_unwanted()

    assert outcomes(client, "late") == {0: "expired"}


def test_a_cancelled_run_ends_in_streams_and_batches_and_others_stay(client: redis.Redis, leader: Leader) -> None:
    """Each of its questions gets one record; the other run's are where they were."""
    accept(client, "unwanted", [None] * 700)
    accept(client, "wanted", [None] * 3)
    leader.hand_out(5)
    leader.inbox.read(0.0)
    cancel_run(client, KEYS, "unwanted", run_ttl_s=600)

    leader.end_unwanted()

    assert outcomes(client, "unwanted") == dict.fromkeys(range(700), "cancelled")
    assert outcomes(client, "wanted") == {}
    assert waiting_jobs(client) == []
    assert client.xlen(KEYS.questions("stub", 0)) == 3
    assert len(leader.forgotten) == 695
    assert [decode_question(question.data).run for question in leader.inbox.waiting[QUEUE]] == []
    ledger = read_ledger(client, KEYS, "unwanted")
    assert (ledger.failed, ledger.missing, ledger.duplicates) == (700, 0, 0)


def test_streams_are_gone_through_once_for_a_cancelled_run(client: redis.Redis, leader: Leader) -> None:
    """A question of it that a worker holds for an hour must not have a backlog of others read every second."""
    accept(client, "unwanted", [None] * 2)
    leader.hand_out(1)
    batch: Any = client.lpop(KEYS.rq_queue("stub"))
    client.hset(f"rq:job:{batch.decode()}", "lease_token", "its")
    cancel_run(client, KEYS, "unwanted", run_ttl_s=600)
    leader.end_unwanted()
    client.config_resetstat()

    leader.end_unwanted()

    assert "cmdstat_xrange" not in client.info("commandstats")
    assert client.sismember(KEYS.cancelled, run_member("unwanted", epoch_of(client, "unwanted")))


def test_a_run_that_is_submitted_and_cancelled_once_more_is_looked_for_once_more(
    client: redis.Redis, leader: Leader
) -> None:
    """The same questions make a run of the same id, to a batcher that has ended that one before."""
    for _ in range(2):
        accept(client, "unwanted", [None] * 6)
        cancel_run(client, KEYS, "unwanted", run_ttl_s=600)
        leader.end_unwanted()

        assert outcomes(client, "unwanted") == dict.fromkeys(range(6), "cancelled")
        client.delete(KEYS.producer("unwanted"))
        forget_run(client, KEYS, "unwanted")
        # What a batcher does with every heartbeat.
        leader.end_unwanted()


def test_batches_stand_by_priority_and_then_by_age(client: redis.Redis, leader: Leader) -> None:
    """Urgent ones before the backlog, but never before those that are as urgent and came first."""
    for priority in (0, 5, 9):
        accept(client, f"p{priority}", [None] * 3, priority=priority)
    for priority in (0, 5, 0, 9, 5, 9, 0, 5, 9):
        leader.hand_out(1, priority)

    ids: Any = client.lrange(KEYS.rq_queue("stub"), 0, -1)
    order = [(int(client.hget(f"rq:job:{batch.decode()}", "priority") or 0)) for batch in ids]
    assert order == [9, 9, 9, 5, 5, 5, 0, 0, 0]
    assert waiting_jobs(client) == [[0], [1], [2]] * 3
