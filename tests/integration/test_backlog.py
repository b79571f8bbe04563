"""What one host finds there is to do, and how many workers it makes of it."""

from __future__ import annotations

import pytest
import redis

from batchfleet.status.backlog import unanswered_questions
from batchfleet.status.workers import WorkerSnapshot
from batchfleet.supervisor.autoscaler import Autoscaler
from batchfleet.supervisor.engine_measures import EngineMeasures
from batchfleet.supervisor.scale_rule import WorkerRange
from wire.keys import Keys, queue_member

KEYS = Keys()


def test_the_backlog_is_that_of_the_own_model_with_what_its_runs_hold_back(client: redis.Redis) -> None:
    """Streams, batches and leases of it, at least one question a batch; nothing of other models, nor of ended runs."""
    client.hset(KEYS.pending, "questions", 1000)
    client.xadd(KEYS.questions("llama", 0), {"q": b""})
    assert unanswered_questions(client, KEYS, "stub", 16) == 0

    client.xadd(KEYS.questions("stub", 9), {"q": b""})
    client.rpush(KEYS.rq_queue("stub"), "batch-1")
    client.zadd(KEYS.leases("stub"), {"batch-2": 1})
    assert unanswered_questions(client, KEYS, "stub", 16) == 1 + 2 * 16
    client.hset(KEYS.pending, "questions", 7)
    assert unanswered_questions(client, KEYS, "stub", 16) == 7
    client.hset(KEYS.pending, "questions", 0)
    assert unanswered_questions(client, KEYS, "stub", 16) == 3

    for run, model in (("open", "stub"), ("abandoned", "stub"), ("other", "llama")):
        client.zadd(KEYS.runs, {run: 1})
        client.hset(KEYS.run(run), mapping={"stream": queue_member(model, 0), "questions": 500, "cursor": 100})
        if run != "abandoned":
            client.set(KEYS.producer(run), "here", ex=60)
    assert unanswered_questions(client, KEYS, "stub", 16) == 3 + 400


def test_a_worker_that_was_given_up_is_not_started_again_by_the_backlog(client: redis.Redis) -> None:
    """Nor beyond what the GPUs hold; a new range counts it no more."""
    client.zadd(KEYS.leases("stub"), {f"batch-{number}": 1 for number in range(100)})
    scaler = Autoscaler("stub", batch_size=1, capacity=1, idle_s=60.0, room=4)
    scaler.set_range(WorkerRange(0, 8), 0)
    scaler.look(client, KEYS, "here-1", 0, 0.0)
    assert (scaler.wanted, scaler.range) == (4, WorkerRange(0, 4))

    scaler.look(client, KEYS, "here-1", 3, 1.0)
    assert (scaler.wanted, scaler.range) == (1, WorkerRange(0, 1))

    scaler.set_range(WorkerRange(0, 3), 1)
    scaler.look(client, KEYS, "here-1", 0, 2.0)
    assert scaler.wanted == 3


def test_a_boot_is_measured_without_the_wait_for_gpus() -> None:
    """A rate only of workers with enough to do; both are remembered when the last worker has gone."""
    measures = EngineMeasures()
    measures.observe([1, 2], [WorkerSnapshot("w", 1, "standby", "no GPU", 64)], 0.0)
    measures.observe([1, 2], [WorkerSnapshot("w", 1, "standby", "no GPU", 64)], 100.0)
    measures.observe([1, 2], [WorkerSnapshot("w", 1, "running", "", 96, 90, 12.0)], 130.0)
    measures.observe([1, 2], [WorkerSnapshot("w", 1, "running", "", 96, 2, 0.5)], 140.0)
    measures.observe([], [], 150.0)

    assert [measures.capacity, measures.per_s, measures.boot_s] == pytest.approx([96, 12.0, 30.0])
