"""A leading batcher's heartbeat takes the same number of round trips, however much there is to do."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from batcher.leadership import Leadership
from batcher.maintenance.housekeeping import Housekeeping
from batcher.maintenance.key_repair import RUN_NUMBERS
from batcher.options import BatcherOptions
from batcher.stream_reader import StreamReader
from tests.builders import a_question
from tests.integration.test_fences import KEYS
from wire.codec import encode_batch, encode_question


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an entry for each time that something was sent to Redis: a command, or a pipeline of many."""
    sent: list[int] = []
    send: Any = redis.connection.AbstractConnection.send_packed_command

    def counted(self: Any, command: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 (passed on)
        sent.append(1)
        send(self, command, *arguments, **options)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
    return sent


def fill(client: redis.Redis, count: int) -> None:
    """Models, runs that were cancelled, workers' batches that lapsed, suspects, silent batchers: `count` of each."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            model, batch = f"model-{number}", f"{number:032x}"
            question = encode_question(a_question(f"q{number}", index=number, model=model))
            fields: dict[Any, Any] = {"data": encode_batch([question]), "origin": f"batchfleet:{model}"}
            pipe.hset(f"rq:job:{batch}", mapping=fields)
            pipe.hset(f"rq:job:{batch}x", mapping={**fields, "origin": "batchfleet:model-0", "deaths": 2, "died": "w"})
            pipe.zadd(KEYS.leases(model), {batch: 1})
            pipe.rpush(KEYS.suspects("model-0"), f"{batch}x")
            pipe.hset(
                KEYS.run(f"run-{number}"),
                mapping={**dict.fromkeys(RUN_NUMBERS, 1), "answered": 0, "failed": 0, "fingerprint": "{}"},
            )
            pipe.sadd(KEYS.cancelled, f"run-{number}")
            pipe.hset(KEYS.batchers, f"batcher-{number}", "{}")
            pipe.sadd(KEYS.queues, f"{model}:0")
            pipe.xadd(KEYS.questions(model, 0), {"q": question, "r": "run-x"})
        pipe.execute()


def round_trips(client: redis.Redis, count: int, sent: list[int]) -> int:
    """Of one heartbeat with so much to do."""
    client.flushall()
    fill(client, count)
    leadership = Leadership(client, KEYS, "leader", lease_s=600.0, renew_s=0.0)
    leadership.hold()
    inbox = StreamReader(client, KEYS, batch_questions=4, max_question_bytes=1_000_000, max_queues=1000)
    inbox.restart()
    keeper = Housekeeping(client, KEYS, leadership, BatcherOptions(heartbeat_s=1000.0), inbox)
    keeper._silent_s = -1.0
    keeper._reaper._looked_at = time.time()
    before = len(sent)
    keeper.tend(inbox.waiting)
    return len(sent) - before


def test_a_heartbeat_takes_no_longer_with_much_to_do(client: redis.Redis, sent: list[int]) -> None:
    """60 models and cancelled runs cost about as many round trips as 20.

    Otherwise a leader with 50 models and 50 cancelled runs, and a Redis 20 ms away, would need longer than its lease
    lasts.
    """
    # Scripts are loaded the first time.
    round_trips(client, 2, sent)

    assert round_trips(client, 60, sent) <= round_trips(client, 20, sent) + 2
