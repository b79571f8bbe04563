"""How much a worker takes, on a real Redis.

All that fits while its engine has room, and beyond that only from a backlog.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.packing import Waiting
from gpu_worker.claims import Intake
from gpu_worker.options import WorkerOptions, default_capacity
from tests.builders import a_question
from wire.codec import encode_question
from wire.keys import Keys

KEYS = Keys()


def put_question(client: redis.Redis, index: int) -> Waiting:
    """A question in the stream."""
    encoded = encode_question(a_question(f"q{index}", index=index))
    entry: Any = client.xadd(KEYS.questions("stub", 0), {"q": encoded})
    return Waiting(entry, encoded, 0.0)


def hand_over(client: redis.Redis, batches: int) -> None:
    """So many batches of two questions wait."""
    leader = Leadership(client, KEYS, "leader", lease_s=60.0, renew_s=0.0)
    leader.hold()
    waiting = [[put_question(client, 2 * number), put_question(client, 2 * number + 1)] for number in range(batches)]
    HandOver(client, KEYS, leader).commit("stub", 0, waiting)


def workers(client: redis.Redis, count: int) -> None:
    """So many workers report."""
    client.zadd(KEYS.workers, {f"worker-{number}": number for number in range(count)})


async def test_without_room_one_batch_comes_from_a_backlog(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """So the engine has the next question when a sequence ends, and no worker hoards."""
    workers(client, 2)
    hand_over(client, 3)

    taken = await Intake(aclient, KEYS, "stub", "worker-0", WorkerOptions()).claim(0)

    assert [len(batch.questions) for batch in taken] == [2]


async def test_without_room_nothing_is_taken_that_others_could_begin_at_once(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """As many batches as workers are no backlog; and a worker that is full is not hungry."""
    workers(client, 2)
    hand_over(client, 2)

    taken = await Intake(aclient, KEYS, "stub", "worker-0", WorkerOptions()).claim(-5)

    assert taken == []
    assert client.llen(KEYS.rq_queue("stub")) == 2
    assert client.zcard(KEYS.hungry("stub")) == 0


async def test_with_room_all_that_fits_is_taken_at_once(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """However many others there are: whoever has room begins at once."""
    workers(client, 8)
    hand_over(client, 4)

    taken = await Intake(aclient, KEYS, "stub", "worker-0", WorkerOptions()).claim(5)

    assert [len(batch.questions) for batch in taken] == [2, 2, 2]


def test_half_as_many_questions_wait_in_the_engine_as_it_works_on() -> None:
    """The default capacity; an engine of one sequence gets no more than one."""
    assert [default_capacity(1), default_capacity(64), default_capacity(255)] == [1, 96, 382]
