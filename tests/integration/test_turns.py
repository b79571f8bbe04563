"""Runs take turns in the queue of batches too. On a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.packing import Waiting
from tests.submissions import KEYS


class Queue:
    """Batches of one question each, which are handed over as a test says."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        leadership = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
        leadership.hold()
        self._hand_over = HandOver(client, KEYS, leadership)
        self._number = 0

    def add(self, runs: str, priority: int = 0) -> None:
        """A hand-over of one batch of each of these runs, a letter each."""
        questions = [
            Waiting(f"{self._number + place}-1".encode(), b"q", 0.0, run.encode()) for place, run in enumerate(runs)
        ]
        self._number += len(runs)
        self._hand_over.commit(
            "stub", priority, [[question] for question in questions], [question.run for question in questions]
        )

    def take(self, count: int) -> str:
        """As a worker would."""
        return "".join(self._whose(self._client.lpop(KEYS.rq_queue("stub"))) for _ in range(count))

    @property
    def order(self) -> str:
        ids: Any = self._client.lrange(KEYS.rq_queue("stub"), 0, -1)
        return "".join(map(self._whose, ids))

    def _whose(self, batch_id: Any) -> str:  # noqa: ANN401 (redis-py's)
        turn: Any = self._client.hget(f"rq:job:{batch_id.decode()}", "turn")
        return str(turn.decode())


@pytest.fixture
def queue(client: redis.Redis) -> Queue:
    """Empty."""
    return Queue(client)


def test_the_first_batches_of_a_late_run_do_not_wait_for_the_last_of_an_early_one(queue: Queue) -> None:
    """One of the early run goes before each of them, and one's own order stays."""
    queue.add("aaaaaa")
    queue.add("bb")
    queue.add("c")
    queue.add("b")

    assert queue.order == "abcababaaa"


def test_turns_are_taken_whatever_was_taken_out_meanwhile(queue: Queue) -> None:
    """Those that wait count, not those that have been."""
    queue.add("aaaa")
    queue.add("b")
    assert queue.take(3) == "aba"
    queue.add("b")
    queue.add("a")

    assert queue.order == "abaa"


def test_turns_are_taken_within_a_priority_only(queue: Queue) -> None:
    """A higher one goes before all, and no newcomer before that."""
    queue.add("aa")
    queue.add("xx", priority=5)
    queue.add("y", priority=5)
    queue.add("b")

    assert queue.order == "xyxaba"


def test_what_is_no_batch_of_ours_is_stepped_over(queue: Queue, client: redis.Redis) -> None:
    """It stays where it is, for a worker to put aside."""
    queue.add("aaa")
    first: Any = client.lrange(KEYS.rq_queue("stub"), 0, 0)
    client.delete(f"rq:job:{first[0].decode()}")
    client.set(f"rq:job:{first[0].decode()}", "no job")
    queue.add("b")

    assert client.lrange(KEYS.rq_queue("stub"), 0, 0) == first
    client.lpop(KEYS.rq_queue("stub"))
    assert queue.order == "aba"
