"""Where the questions of a run are.

This is asked only when nothing has come of them for a while, because it means looking through the whole fleet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from wire.codec import decode_batch, identify_question
from wire.errors import MalformedMessageError, NewerMessageError
from wire.keys import RQ_JOB_PREFIX, Keys, parse_queue_member

ENTRIES_PER_READ = 500

_RunEpoch = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What Redis knows of the questions of a run that have no line.

    Attributes:
        unanswered: Accepted, and without a record.
        records: Waiting for the producer.
        underway: At least one of its questions is queued, in a batch, or with a worker.
    """

    unanswered: int
    records: int
    underway: bool

    @property
    def is_stuck(self) -> bool:
        """Whether nothing can come any more."""
        return not self.underway and self.records == 0


def whereabouts(client: redis.Redis, keys: Keys, run: str, epoch: str) -> Whereabouts:
    """Look for the questions of a run.

    One that is just being moved from one place to another may be missed: look twice before you believe it.
    """
    accepted: Any = client.bitcount(keys.accepted(run))
    done: Any = client.bitcount(keys.done(run))
    records: Any = client.xlen(keys.records(run))
    return Whereabouts(max(0, accepted - done), records, _is_underway(client, keys, (run, epoch)))


def _is_underway(client: redis.Redis, keys: Keys, run: _RunEpoch) -> bool:
    members: Any = client.smembers(keys.queues)
    queues = [queue for member in members if (queue := parse_queue_member(member.decode("utf-8", "replace")))]
    # Streams first: that is the way of a question.
    if any(_is_in_stream(client, keys.questions(*queue), run) for queue in queues):
        return True
    return any(_is_in_batches(client, keys, model, run) for model in sorted({model for model, _ in queues}))


def _is_in_stream(client: redis.Redis, stream: str, run: _RunEpoch) -> bool:
    start, name = "-", run[0].encode()
    while True:
        entries: Any = client.xrange(stream, start, "+", count=ENTRIES_PER_READ)
        if any(fields.get(b"r") == name and _is_of(run, fields.get(b"q", b"")) for _, fields in entries):
            return True
        if len(entries) < ENTRIES_PER_READ:
            return False
        start = f"({entries[-1][0].decode()}"


def _is_of(run: _RunEpoch, question: bytes) -> bool:
    known = identify_question(question)
    return known is not None and (known.run, known.epoch) == run


def _is_in_batches(client: redis.Redis, keys: Keys, model: str, run: _RunEpoch) -> bool:
    # At one instant: a batch goes back and forth between these.
    with client.pipeline(transaction=True) as pipe:
        for batches in (keys.rq_queue(model), keys.suspects(model), keys.isolated(model)):
            pipe.lrange(batches, 0, -1)
        pipe.zrange(keys.leases(model), 0, -1)
        pipe.zrange(keys.newer(model), 0, -1)
        found = pipe.execute()
    return any(_holds(client, batch, run) for batches in found for batch in batches)


def _holds(client: redis.Redis, batch: bytes, run: _RunEpoch) -> bool:
    key = RQ_JOB_PREFIX.encode() + batch
    if client.type(key) != b"hash":
        return False
    data: Any = client.hget(key, "data")
    try:
        questions = decode_batch(data or b"")
    except NewerMessageError:
        # Whose questions are in it, a newer worker knows.
        return True
    except MalformedMessageError:
        return False
    return any(_is_of(run, question) for question in questions)
