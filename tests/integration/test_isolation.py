"""How many parts of suspect batches may run alone at once."""

from __future__ import annotations

from typing import Any

import redis

from batcher.maintenance.quarantine import MOST_ISOLATED, Quarantine
from tests.integration.test_fences import KEYS, batch_jobs, hand_over, leadership, put_question
from wire.codec import decode_batch, decode_question


def ids_in(client: redis.Redis, key: str) -> list[str]:
    """Request ids of the questions in the batches of a list."""
    batches: Any = client.lrange(key, 0, -1)
    jobs: list[Any] = [client.hget(f"rq:job:{batch.decode()}", "data") for batch in batches]
    return [decode_question(one).request_id for data in jobs for one in decode_batch(data)]


def test_kills_from_outside_do_not_make_a_fleet_run_its_questions_one_by_one(client: redis.Redis) -> None:
    """Forty workers died twice with what they held.

    Some of it runs alone, the rest with others again, and each question is in one place.
    """
    leader = leadership(client, "one")
    leader.hold()
    over = hand_over(client, leader)
    for number in range(40):
        over.commit("stub", 0, [[put_question(client, f"q{number}-{i}", 8 * number + i) for i in range(8)]])
    jobs = batch_jobs(client)
    for number, job in enumerate(jobs):
        client.hset(f"rq:job:{job.decode()}", mapping={"deaths": 2, "died": f"a{number},b{number}"})
    client.rename(KEYS.rq_queue("stub"), KEYS.suspects("stub"))
    quarantine = Quarantine(client, KEYS, leader, max_bytes=1_000_000, run_ttl_s=60)

    for _ in range(3):
        quarantine.judge_all({"stub"})

    isolated, free = ids_in(client, KEYS.isolated("stub")), ids_in(client, KEYS.rq_queue("stub"))
    assert client.llen(KEYS.isolated("stub")) == MOST_ISOLATED
    assert sorted(isolated + free) == sorted(f"q{number}-{i}" for number in range(40) for i in range(8))
    assert client.llen(KEYS.suspects("stub")) == 0
    assert {client.hget(f"rq:job:{job.decode()}", "deaths") for job in batch_jobs(client)} == {b"1"}
