"""What must not happen without a lease does not happen.

Hand-over, finish, renewal, return, each against a real Redis.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
import redis.asyncio

from batcher.handover import HandOver
from batcher.leadership import Leadership
from batcher.maintenance.reaper import Reaper
from batcher.packing import Waiting
from batchfleet.runs.ledger import read_ledger
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.claims import HeldBatch, Intake
from gpu_worker.heartbeat import Leases
from gpu_worker.options import WorkerOptions
from gpu_worker.publisher import Publisher
from producer.collector import Collector
from producer.options import ProducerOptions
from producer.questions.question_parser import ParsedQuestion
from producer.sender import Sender
from tests.builders import a_question, an_answer, epoch_of
from tests.processes import wait_until
from wire.address import RedisAddress
from wire.clock import ServerClock
from wire.codec import decode_batch, encode_question
from wire.errors import LeaseLostError, UsageError
from wire.keys import SUSPECT_AFTER_DEATHS, Keys

KEYS = Keys()
OPTIONS = WorkerOptions(lease_s=600.0, heartbeat_s=0.05)
"""Leases that lapse when a test says so, however slow the machine is."""


def leadership(client: redis.Redis, token: str, lease_s: float = 600.0) -> Leadership:
    """A batcher's claim to lead."""
    return Leadership(client, KEYS, token, lease_s=lease_s, renew_s=0.0)


def hand_over(client: redis.Redis, leader: Leadership) -> HandOver:
    """Its hand-over."""
    return HandOver(client, KEYS, leader)


def put_question(client: redis.Redis, request_id: str = "q1", index: int = 0) -> Waiting:
    """A question in the stream."""
    encoded = encode_question(a_question(request_id, index=index))
    entry: Any = client.xadd(KEYS.questions("stub", 0), {"q": encoded})
    return Waiting(entry, encoded, 0.0)


def batch_jobs(client: redis.Redis) -> list[bytes]:
    """Ids of the batch jobs that wait."""
    found: Any = client.lrange(KEYS.rq_queue("stub"), 0, -1)
    return list(found)


def waiting_questions(client: redis.Redis) -> int:
    """How many questions are in the stream."""
    found: Any = client.xlen(KEYS.questions("stub", 0))
    return int(found)


def test_a_question_is_in_the_stream_or_in_one_batch(client: redis.Redis) -> None:
    """The hand-over removes it from the one and makes the other, in one step."""
    leader = leadership(client, "one")
    leader.hold()
    question = put_question(client)

    hand_over(client, leader).commit("stub", 0, [[question]])

    assert waiting_questions(client) == 0
    (job,) = batch_jobs(client)
    data: Any = client.hget(f"rq:job:{job.decode()}", "data")
    assert decode_batch(data) == [question.data]


def test_a_batcher_that_lost_its_lease_changes_nothing(client: redis.Redis) -> None:
    """A paused leader wakes up after another took over.

    Its hand-over is refused, and the question stays where it was.
    """
    paused = leadership(client, "paused", lease_s=0.05)
    paused.hold()
    question = put_question(client)
    wait_until(lambda: not client.exists(KEYS.leader), "its lease has lapsed")
    leadership(client, "successor").hold()

    with pytest.raises(LeaseLostError):
        hand_over(client, paused).commit("stub", 0, [[question]])

    assert waiting_questions(client) == 1
    assert batch_jobs(client) == []
    assert not paused.held


def test_a_lease_that_changes_hands_in_the_middle_of_a_hand_over_stops_it(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a batcher makes up its changes, another one takes over: none of them is made."""
    leader = leadership(client, "one")
    leader.hold()
    question = put_question(client)
    over = hand_over(client, leader)
    fields = over._fields

    def take_over_meanwhile(*arguments: Any) -> list[Any]:  # noqa: ANN401 (passed on)
        client.set(KEYS.leader, "two")
        return fields(*arguments)

    monkeypatch.setattr(over, "_fields", take_over_meanwhile)

    with pytest.raises(LeaseLostError):
        over.commit("stub", 0, [[question]])

    assert waiting_questions(client) == 1
    assert batch_jobs(client) == []


def test_only_one_batcher_leads_and_a_released_lease_is_free_at_once(client: redis.Redis) -> None:
    """A standby becomes leader when the leader leaves, not before."""
    first, second = leadership(client, "one"), leadership(client, "two")
    assert first.hold()
    assert not second.hold()
    assert (first.held, second.held) == (True, False)

    first.release()

    assert second.hold()
    assert client.get(KEYS.leader) == b"two"


def intake(aclient: redis.asyncio.Redis, worker: str) -> Intake:
    """A worker's way to its batches."""
    return Intake(aclient, KEYS, "stub", worker, OPTIONS)


async def claim_one(client: redis.Redis, aclient: redis.asyncio.Redis, worker: str) -> HeldBatch:
    """A batch of two questions, handed over and claimed."""
    leader = leadership(client, "leader")
    leader.hold()
    hand_over(client, leader).commit("stub", 0, [[put_question(client, "q1", 0), put_question(client, "q2", 1)]])
    (batch,) = await intake(aclient, worker).claim(10)
    return batch


def reap(client: redis.Redis) -> int:
    """Take lapsed batches back; returns how many."""
    return Reaper(client, KEYS, heartbeat_s=0.0).take_back({"stub"})


def let_lapse(client: redis.Redis) -> None:
    """All leases are over now, and the batches are taken back."""
    batches: Any = client.zrange(KEYS.leases("stub"), 0, -1)
    client.zadd(KEYS.leases("stub"), dict.fromkeys(batches, 1))
    assert reap(client) == len(batches)


def publisher(aclient: redis.asyncio.Redis, redis_server: EmbeddedServer) -> Publisher:
    """A worker's way to write records."""
    return Publisher(aclient, RedisAddress(redis_server.url), KEYS, "stub", run_ttl_s=60)


async def test_a_lapsed_batch_goes_to_another_worker_with_everything_in_it(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Nothing of it is lost, and the second worker knows that it is the second."""
    first = await claim_one(client, aclient, "slow")
    assert reap(client) == 0

    let_lapse(client)
    (second,) = await intake(aclient, "other").claim(10)

    assert second.batch_id == first.batch_id
    assert [question.request_id for question, _ in second.questions] == ["q1", "q2"]
    assert second.attempts == 2


async def test_a_clock_that_is_set_at_the_server_takes_no_batch_from_a_living_worker(
    client: redis.Redis, aclient: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leases lapse in that moment, and so they do while the machine sleeps.

    Workers first get the time to renew them.
    """
    batch = await claim_one(client, aclient, "w")
    server_s = 1000.0
    monkeypatch.setattr(client, "time", lambda: (int(server_s), 0))
    reaper = Reaper(client, KEYS, heartbeat_s=1.0)
    taken = []
    client.zadd(KEYS.leases("stub"), {batch.batch_id: 1})
    for passed_s in (0.0, 2.0, 3600.0, 2.0, 2.0):
        server_s += passed_s
        taken.append(reaper.take_back({"stub"}))

    assert taken == [0, 0, 0, 0, 1]


async def test_a_worker_that_lost_its_lease_cannot_end_the_batch(
    client: redis.Redis, aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """The zombie's finish is refused, and the batch stays the other's."""
    zombie = await claim_one(client, aclient, "zombie")
    let_lapse(client)
    (current,) = await intake(aclient, "other").claim(10)

    await publisher(aclient, redis_server).end([zombie])
    assert client.exists(f"rq:job:{current.batch_id}")
    await publisher(aclient, redis_server).end([current])
    assert not client.exists(f"rq:job:{current.batch_id}")


async def test_a_worker_that_lost_its_lease_can_neither_renew_nor_return_it(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """Renewing would steal the batch back from the worker that answers it now.

    Returning would have it answered a third time.
    """
    zombie = await claim_one(client, aclient, "zombie")
    let_lapse(client)
    (current,) = await intake(aclient, "other").claim(10)
    lapses: Any = client.zscore(KEYS.leases("stub"), current.batch_id)

    heard = await Leases(aclient, KEYS, "stub", "zombie", OPTIONS, ServerClock()).renew([zombie], {"state": "running"})
    await intake(aclient, "zombie").give_back(zombie, engine_died=False)

    assert heard.lost == [zombie]
    assert client.zscore(KEYS.leases("stub"), current.batch_id) == lapses
    assert batch_jobs(client) == []


async def test_a_lapsed_batch_is_nobodys_until_it_is_claimed(
    client: redis.Redis, aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """Its old worker may wake up before the next one has it; it can do nothing with the batch then either."""
    zombie = await claim_one(client, aclient, "zombie")
    let_lapse(client)

    heard = await Leases(aclient, KEYS, "stub", "zombie", OPTIONS, ServerClock()).renew([zombie], {"state": "running"})
    await publisher(aclient, redis_server).end([zombie])
    await intake(aclient, "zombie").give_back(zombie, engine_died=False)

    assert heard.lost == [zombie]
    assert batch_jobs(client) == [zombie.batch_id.encode()]
    assert client.exists(f"rq:job:{zombie.batch_id}")


async def test_renewing_keeps_a_batch_beyond_its_lease(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """Whenever it is about to lapse, a renewal makes it a whole lease long again."""
    options = WorkerOptions(lease_s=60.0, heartbeat_s=0.05)
    batch = await claim_one(client, aclient, "steady")
    leases = Leases(aclient, KEYS, "stub", "steady", options, ServerClock())
    for _ in range(3):
        seconds: Any = client.time()[0]
        client.zadd(KEYS.leases("stub"), {batch.batch_id: 1000 * seconds})
        assert (await leases.renew([batch], {"state": "running"})).lost == []
        assert reap(client) == 0
        assert client.zscore(KEYS.leases("stub"), batch.batch_id) >= 1000 * (seconds + options.lease_s)


async def test_a_batch_that_is_given_back_is_next_and_was_no_attempt(
    client: redis.Redis, aclient: redis.asyncio.Redis
) -> None:
    """A worker that merely stops costs its questions nothing."""
    batch = await claim_one(client, aclient, "leaving")

    await intake(aclient, "leaving").give_back(batch, engine_died=False)
    (again,) = await intake(aclient, "other").claim(10)

    assert (again.batch_id, again.attempts) == (batch.batch_id, 1)


async def test_a_batch_whose_engines_die_becomes_suspect(client: redis.Redis, aclient: redis.asyncio.Redis) -> None:
    """One death may be chance; after the second it waits for the batcher's judgement, not for a third worker."""
    batch = await claim_one(client, aclient, "first")
    for _ in range(SUSPECT_AFTER_DEATHS - 1):
        await intake(aclient, "dying").give_back(batch, engine_died=True)
        (batch,) = await intake(aclient, "next").claim(10)

    await intake(aclient, "dying").give_back(batch, engine_died=True)

    assert await intake(aclient, "other").claim(10) == []
    assert client.lrange(KEYS.suspects("stub"), 0, -1) == [batch.batch_id.encode()]


def accept_two(client: redis.Redis) -> None:
    """Open run-1 and have questions 0 and 1 accepted."""
    sender = Sender(client, KEYS, "run-1", {"questions": "x"}, 2, ProducerOptions())
    sender.open()
    asked = [
        ParsedQuestion(number, number + 1, f"q{number + 1}", "What?", None, None, {}, 0, None, None)
        for number in range(2)
    ]
    assert sender.send(0, 2, asked, "stub").outcome == "ok"


async def test_the_first_record_of_a_question_wins(
    client: redis.Redis, aclient: redis.asyncio.Redis, redis_server: EmbeddedServer
) -> None:
    """The second is counted, not shown, and the ledger stays true."""
    accept_two(client)
    epoch = epoch_of(client, "run-1")
    writer = publisher(aclient, redis_server)
    task = asyncio.create_task(writer.run())
    for text in ("first", "second"):
        writer.add(an_answer("q1", index=0, epoch=epoch, text=text), 100)
        await writer.flushed()
    writer.add(an_answer("q2", index=1, epoch=epoch), 100)
    await writer.flushed()
    task.cancel()

    records: Any = client.xrange(KEYS.records("run-1"))
    assert len(records) == 2
    assert b"first" in records[0][1][b"a"]
    ledger = read_ledger(client, KEYS, "run-1")
    assert (ledger.accepted, ledger.answered, ledger.missing, ledger.duplicates) == (2, 2, 0, 0)
    assert client.hget(KEYS.run("run-1"), "regenerated") == b"1"


def test_a_producer_that_was_taken_over_lets_go_of_nothing(client: redis.Redis) -> None:
    """The claim is the other's by then; its own it gives up at once."""
    sender = Sender(client, KEYS, "run-1", {"questions": "x"}, 2, ProducerOptions())
    sender.open()
    collector = Collector(client, KEYS, "run-1", sender, ProducerOptions())
    ours = client.get(KEYS.producer("run-1"))

    client.set(KEYS.producer("run-1"), "another")
    collector.release()
    assert client.get(KEYS.producer("run-1")) == b"another"
    client.set(KEYS.producer("run-1"), ours or b"")
    collector.release()
    assert not client.exists(KEYS.producer("run-1"))


def test_a_submission_sent_twice_is_accepted_once(client: redis.Redis) -> None:
    """A producer that lost its connection before the reply may send again: the cursor says that it was heard."""
    accept_two(client)
    sender = Sender(client, KEYS, "run-1", {"questions": "x"}, 2, ProducerOptions())
    sender.epoch = epoch_of(client, "run-1")
    asked = [ParsedQuestion(0, 1, "q1", "What?", None, None, {}, 0, None, None)]

    assert sender.send(0, 1, asked, "stub").outcome == "cursor"

    assert waiting_questions(client) == 2


def test_the_window_of_a_run_and_the_bound_of_the_fleet_hold_a_producer_back(client: redis.Redis) -> None:
    """What exceeds a bound is not accepted, and says so."""
    asked = [
        ParsedQuestion(number, number + 1, f"q{number}", "What?", None, None, {}, 0, None, None) for number in range(4)
    ]
    for options, expected in (
        (ProducerOptions(run_window=3), "window"),
        (ProducerOptions(max_pending_questions=3), "pending"),
    ):
        sender = Sender(client, KEYS, f"run-{expected}", {"questions": "x"}, 4, options)
        sender.open()
        assert sender.send(0, 3, asked[:3], "stub").outcome == "ok"
        assert sender.send(3, 4, asked[3:], "stub").outcome == expected
        client.delete(KEYS.pending)


def test_what_a_run_leaves_ends_by_itself(client: redis.Redis) -> None:
    """From its first question on: its producer may never come back."""
    accept_two(client)

    keys = [KEYS.run("run-1"), KEYS.accepted("run-1"), KEYS.producer("run-1")]
    assert all(client.ttl(key) > 0 for key in keys)


def test_a_run_made_of_something_else_is_refused(client: redis.Redis) -> None:
    """The same id with other questions is not a continuation; the difference is named, and nothing changes."""
    accept_two(client)
    client.delete(KEYS.producer("run-1"))

    with pytest.raises(UsageError, match=r"questions \(x then, y now\)"):
        Sender(client, KEYS, "run-1", {"questions": "y"}, 2, ProducerOptions()).open()
    assert client.hget(KEYS.run("run-1"), "accepted") == b"2"
