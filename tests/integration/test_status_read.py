"""What `status` says is what Redis holds, whatever else lies there."""

from __future__ import annotations

import json
import os
import socket

import redis

from batchfleet.status.model import RunStatus
from batchfleet.status.read import read_status
from tests.submissions import KEYS, Submitter
from wire.keys import queue_member


def test_each_queue_gets_its_own_figures(client: redis.Redis) -> None:
    """Of several models with several priorities each: no figure slips from one to another."""
    for number, model in enumerate(["a", "b:c", "d"], start=1):
        for priority in range(number):
            client.sadd(KEYS.queues, queue_member(model, priority))
            for _ in range(10 * number + priority):
                client.xadd(KEYS.questions(model, priority), {"q": b"", "r": "run-1"}, id=f"{1000 * number}-*")
        client.rpush(KEYS.rq_queue(model), *range(number))
        client.rpush(KEYS.suspects(model), *range(2 * number))
        client.rpush(KEYS.isolated(model), *range(number))
        client.zadd(KEYS.newer(model), {f"batch-{one}": 100 * number + one for one in range(3 + number)})

    queues = read_status(client, KEYS).queues

    assert [(queue.model, queue.waiting_questions) for queue in queues] == [("a", 10), ("b:c", 41), ("d", 93)]
    assert [queue.waiting_batches for queue in queues] == [1, 2, 3]
    assert [queue.suspect_batches for queue in queues] == [3, 6, 9]
    assert [(queue.newer_batches, queue.newer_version) for queue in queues] == [(4, 103), (5, 204), (6, 305)]
    assert queues[0].oldest_s > queues[1].oldest_s > queues[2].oldest_s > 1e9


def test_runs_are_listed_with_who_asks_what(client: redis.Redis) -> None:
    """The latest first: how far each is, of which model and priority, and who collects it."""
    submitter = Submitter(client, "run-1", 40)
    submitter.offer(30, priority=4)
    client.hset(KEYS.run("run-1"), mapping={"answered": 12, "failed": 3})
    client.hincrby(KEYS.run("run-1"), "created", -100)

    (run,) = read_status(client, KEYS).runs

    assert (run.run, run.model, run.priority, run.questions, run.accepted) == ("run-1", "stub", 4, 40, 30)
    assert (run.answered, run.failed, run.state) == (12, 3, "asking")
    assert run.collected_by == f"{socket.gethostname()}:{os.getpid()}"
    assert 0.1 < run.answers_per_s <= 0.12


def test_a_run_is_in_one_of_four_states() -> None:
    """What is complete needs nobody who collects it; one whose number of questions nobody knows yet is not complete."""
    assert RunStatus("r", questions=5, answered=3, failed=2).state == "complete"
    assert RunStatus("r", questions=-1, answered=3, collected_by="h:1").state == "asking"
    assert RunStatus("r", questions=5, answered=3).state == "nobody collects"
    assert RunStatus("r", questions=5, answered=3, is_cancelled=True, collected_by="h:1").state == "cancelled"


def test_what_others_wrote_there_reads_as_nothing(client: redis.Redis) -> None:
    """Keys of other types, fields that are no numbers, JSON that is none: the rest is still told."""
    client.set(KEYS.dead, "text")
    client.hset(KEYS.pending, "questions", "many")
    client.hset(KEYS.batchers, mapping={"b1": "[]", "b2": json.dumps({"batches": 7})})
    client.sadd(KEYS.queues, "model:0", "nonsense")
    client.rpush(KEYS.questions("model", 0), "no stream")
    client.zadd(KEYS.workers, {"w1": 1.0, "w2": 1.0})
    client.hset(KEYS.worker("w1"), mapping={"state": "running", "in_flight": "1e99", "failures": "[1]", "gpu_use": "{"})
    client.set(KEYS.worker("w2"), "text")
    client.zadd(KEYS.runs, {"run-1": 1.0, "run-2": 2.0})
    client.hset(KEYS.run("run-1"), mapping={"answered": "some", "fingerprint": "[]"})

    status = read_status(client, KEYS)

    assert (status.dead_letters, status.pending_questions) == (0, 0)
    assert [(batcher.name, batcher.batches) for batcher in status.batchers] == [("b1", 0), ("b2", 7)]
    assert [(queue.model, queue.waiting_questions) for queue in status.queues] == [("model", 0)]
    assert [(worker.name, worker.state, worker.in_flight) for worker in status.workers] == [("w1", "running", 0)]
    assert [(run.run, run.model, run.answered) for run in status.runs] == [("run-1", "?", 0)]
