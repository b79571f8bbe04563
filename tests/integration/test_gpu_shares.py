"""Room in a full fleet goes to who waits, not to who asks most often. Against a real Redis."""

from __future__ import annotations

from typing import Any

import redis

from producer.options import ProducerOptions
from tests.submissions import KEYS, Submitter

ROOM = 1000
SMALL = ProducerOptions(run_window=1_000_000, max_pending_questions=ROOM)
CHUNK = 50


def answer(client: redis.Redis, run: str, count: int) -> None:
    """Have `count` questions of a run end."""
    client.hincrby(KEYS.run(run), "answered", count)
    client.hincrby(KEYS.pending, "questions", -count)


def pending(client: redis.Redis, run: str) -> int:
    """How many questions of a run have no record."""
    counts: Any = client.hmget(KEYS.run(run), "accepted", "answered")
    return int(counts[0]) - int(counts[1])


def fill(submitter: Submitter) -> str:
    """Submit until nothing more is taken; returns why."""
    while (outcome := submitter.offer(CHUNK).outcome) == "ok":
        pass
    return outcome


def test_a_run_by_itself_may_have_all_the_room(client: redis.Redis) -> None:
    """Shares are for when others wait."""
    early = Submitter(client, "early", 10_000, SMALL)

    assert fill(early) == "pending"
    assert pending(client, "early") == ROOM


def test_a_late_run_gets_the_room_that_comes_free(client: redis.Redis) -> None:
    """The early run asks again each time that one of its questions ends, the late one only now and then."""
    early, late = Submitter(client, "early", 10_000, SMALL), Submitter(client, "late", 10_000, SMALL)
    fill(early)
    assert late.offer(CHUNK).outcome == "pending"

    for _ in range(10):
        answer(client, "early", CHUNK)
        for _ in range(5):
            assert early.offer(CHUNK).outcome == "share"
        assert late.offer(CHUNK).outcome == "ok"

    assert pending(client, "early") == pending(client, "late") == ROOM // 2


def test_bytes_are_shared_as_well(client: redis.Redis) -> None:
    """Where prompts are long, bytes run out before questions do."""
    options = ProducerOptions(run_window=1_000_000, max_pending_bytes=100 * CHUNK * 10)
    early, late = Submitter(client, "early", 10_000, options), Submitter(client, "late", 10_000, options)
    fill(early)
    full = pending(client, "early")
    assert late.offer(CHUNK).outcome == "pending"

    answer(client, "early", CHUNK)
    client.hincrby(KEYS.pending, "bytes", -110 * CHUNK)

    assert full < 10_000
    assert early.offer(CHUNK).outcome == "share"
    assert late.offer(CHUNK).outcome == "ok"


def test_who_has_nothing_pending_is_never_above_its_share(client: redis.Redis) -> None:
    """However many wait, each gets its first questions in."""
    early = Submitter(client, "early", 10_000, SMALL)
    fill(early)
    others = [Submitter(client, f"other-{number}", 1000, SMALL) for number in range(ROOM // CHUNK)]
    for other in others:
        assert other.offer(CHUNK).outcome == "pending"

    answer(client, "early", ROOM)

    assert [other.offer(CHUNK).outcome for other in others] == ["ok"] * len(others)


def test_a_share_ends_with_the_wait(client: redis.Redis) -> None:
    """Who waited and has gone leaves its room to the others."""
    early, late = Submitter(client, "early", 10_000, SMALL), Submitter(client, "late", 10_000, SMALL)
    fill(early)
    late.offer(CHUNK)
    answer(client, "early", CHUNK)
    assert early.offer(CHUNK).outcome == "share"

    client.zadd(KEYS.refused, {"late": 1.0})

    assert early.offer(CHUNK).outcome == "ok"
    assert client.pttl(KEYS.refused) > 0
