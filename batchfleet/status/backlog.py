"""How much there is to do for one model."""

from __future__ import annotations

import redis

from batchfleet.status.replies import Batch, number
from wire.keys import Keys, parse_queue_member
from wire.messages import MAX_PRIORITY

RUNS = 20


def unanswered_questions(client: redis.Redis, keys: Keys, model: str, batch_size: int) -> int:
    """Questions of a model that have no record yet, and those that its runs have not sent yet.

    0 exactly if none waits or is in work. Otherwise it may be too high, as Redis knows how many batches there are and
    not how full, and counts what has no record for all models together. Batches for newer workers do not count.
    """
    batch = Batch(client)
    streams = [batch.ask("XLEN", keys.questions(model, priority)) for priority in range(MAX_PRIORITY + 1)]
    lists = [batch.ask("LLEN", key) for key in (keys.rq_queue(model), keys.suspects(model), keys.isolated(model))]
    leases = batch.ask("ZCARD", keys.leases(model))
    pending = batch.ask("HGET", keys.pending, "questions")
    runs = batch.ask("ZREVRANGE", keys.runs, 0, RUNS - 1)
    batch.send()
    waiting = sum(stream.number() for stream in streams)
    batches = sum(one.number() for one in (*lists, leases))
    if not waiting + batches:
        return 0
    most = min(pending.number(), waiting + batches * batch_size)
    return max(most, waiting + batches) + _not_sent(client, keys, model, runs.texts())


def _not_sent(client: redis.Redis, keys: Keys, model: str, runs: list[str]) -> int:
    """What the producers of the latest runs hold back: a run sends no more than `limits.run_window` ahead."""
    batch = Batch(client)
    asked = [(batch.ask("EXISTS", keys.producer(run)), batch.ask("HGETALL", keys.run(run))) for run in runs]
    batch.send()
    found = 0
    for producer, reply in asked:
        fields = reply.fields()
        stream = parse_queue_member(fields.get("stream", ""))
        if producer.number() and stream and stream[0] == model and "cancelled" not in fields:
            found += max(0, number(fields.get("questions")) - number(fields.get("cursor")))
    return found
