"""Batches that are no longer listed anywhere are listed again, each once.

What they were listed in was damaged or deleted.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from batcher.maintenance.key_repair import Mender
from batcher.maintenance.orphans import Orphans
from batcher.maintenance.reaper import Reaper
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.heartbeat import Leases
from tests.hostile.attacks import wrong
from tests.integration.test_fences import KEYS, OPTIONS, claim_one, hand_over, intake, leadership, put_question
from tests.processes import Processes, read_answers, wait_until, write_questions
from wire.clock import ServerClock

PLACES = (KEYS.rq_queue("stub"), KEYS.suspects("stub"), KEYS.isolated("stub"))
SHORT = {
    "BATCHFLEET_LEASES_HEARTBEAT_S": "0.2",
    "BATCHFLEET_LEASES_LEADER_S": "1",
    "BATCHFLEET_LEASES_BATCH_S": "2",
    "BATCHFLEET_STUB_STEP_S": "0.1",
    "BATCHFLEET_STUB_MIN_TOKENS": "40",
    "BATCHFLEET_STUB_MAX_TOKENS": "60",
}


def look(client: redis.Redis) -> int:
    """Go through all jobs once; returns how many were listed again."""
    return Orphans(client, KEYS, heartbeat_s=0.1).look()


def queued(client: redis.Redis) -> list[bytes]:
    """Ids of the batches that wait, whatever for."""
    return [batch for place in PLACES for batch in list_of(client, place)]


def list_of(client: redis.Redis, key: str) -> list[bytes]:
    """What is in a list."""
    found: Any = client.lrange(key, 0, -1)
    return list(found)


async def test_a_worker_regains_leases_that_were_lost_under_it(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Its batch still carries its token, so it is its own: the next heartbeat enters it again."""
    batch = await claim_one(client, aclient, "w")
    client.delete(KEYS.leases("stub"))

    heard = await Leases(aclient, KEYS, "stub", "w", OPTIONS, ServerClock()).renew([batch], {"state": "running"})

    assert heard.lost == []
    assert client.zscore(KEYS.leases("stub"), batch.batch_id) is not None


def test_what_waited_in_a_damaged_queue_waits_again(client: redis.Redis) -> None:
    """The list is gone for good, its jobs are not; a second look finds nothing more to do."""
    leader = leadership(client, "one")
    leader.hold()
    hand_over(client, leader).commit("stub", 0, [[put_question(client, f"q{number}", number)] for number in range(8)])
    before = queued(client)
    wrong(client, KEYS.rq_queue("stub"), "list")
    orphans = Orphans(client, KEYS, heartbeat_s=0.1)

    Mender(client, KEYS, max_dead_letters=10, moved=orphans.look_soon).search()
    found = orphans.look()

    assert found == len(before) == 8
    assert sorted(queued(client)) == sorted(before)
    assert look(client) == 0


async def test_a_batch_whose_worker_died_with_its_lease_gone_is_taken_back(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """It gets a lease that nobody renews, which lapses as any other; until then a living worker could renew it."""
    batch = await claim_one(client, aclient, "dead")
    client.delete(KEYS.leases("stub"))

    assert look(client) == 1
    assert queued(client) == []
    wait_until(lambda: Reaper(client, KEYS, heartbeat_s=0.0).take_back({"stub"}), "its lease lapses")

    assert queued(client) == [batch.batch_id.encode()]


@pytest.mark.parametrize(
    ("fields", "place"),
    [({"alone": "1", "deaths": "3"}, KEYS.isolated("stub")), ({"deaths": "2"}, KEYS.suspects("stub")), ({}, PLACES[0])],
)
def test_a_suspect_stays_one(client: redis.Redis, fields: dict[str, str], place: str) -> None:
    """What may kill an engine does not come back among innocent questions because a list was damaged."""
    leader = leadership(client, "one")
    leader.hold()
    hand_over(client, leader).commit("stub", 0, [[put_question(client)]])
    (batch,) = queued(client)
    for name, value in fields.items():
        client.hset(f"rq:job:{batch.decode()}", name, value)
    client.delete(KEYS.rq_queue("stub"))

    assert look(client) == 1
    assert list_of(client, place) == [batch]


def test_jobs_of_other_applications_are_left_alone(client: redis.Redis) -> None:
    """Another RQ queue, a string under a job's name, a fleet with another namespace."""
    client.hset("rq:job:theirs", mapping={"origin": "default", "data": "x"})
    client.hset("rq:job:neighbour", mapping={"origin": "other:stub", "data": "x"})
    client.set("rq:job:text", "x")

    assert look(client) == 0
    assert queued(client) == []


async def test_a_job_that_is_just_claimed_given_back_or_newer_is_no_orphan(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Wherever a batch is by right, it is found there."""
    batch = await claim_one(client, aclient, "w")
    assert look(client) == 0
    await intake(aclient, "w").give_back(batch, engine_died=False)
    assert look(client) == 0
    client.delete(KEYS.rq_queue("stub"))
    client.zadd(KEYS.newer("stub"), {batch.batch_id: 2})
    assert look(client) == 0


@pytest.mark.parametrize("damaged", ["leases", "queue"])
def test_a_fleet_answers_all_though_lists_are_damaged_and_the_worker_is_killed(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path, damaged: str
) -> None:
    """Its worker dies before its next heartbeat can put anything right.

    Another answers what it held and what waited.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 128)
    answers = tmp_path / "answers.jsonl"

    with Processes(redis_server.url, tmp_path, SHORT) as fleet:
        fleet.batcher()
        fleet.worker(PARALLEL_WORKERS="2")
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: client.zcard(KEYS.leases("stub")) and client.llen(PLACES[0]), "some are held, some wait")
        fleet.kill("worker", signal.SIGSTOP)
        wrong(client, KEYS.leases("stub") if damaged == "leases" else PLACES[0], "?")
        fleet.kill("worker")
        fleet.worker("another")

        assert fleet.finish("producer") == 0

    assert sorted(line["id"] for line in read_answers(answers)) == sorted(ids)
