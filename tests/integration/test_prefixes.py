"""A batcher sees for itself which questions begin alike. On a real Redis."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest
import redis

from batcher.batcher import Batcher
from batcher.options import BatcherOptions
from batcher.packing import GATHERING_QUESTIONS
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.builders import a_question
from tests.processes import wait_until
from tests.submissions import KEYS
from wire.address import RedisAddress
from wire.codec import decode_batch, decode_question, encode_question
from wire.keys import queue_member

DOCUMENTS, EACH = 40, 8
AT_ONCE = GATHERING_QUESTIONS // 16
"""Batches of 16 that go before company is waited for."""
STREAM, QUEUE = KEYS.questions("stub", 0), KEYS.rq_queue("stub")


def submit(client: redis.Redis) -> None:
    """Shuffled questions to long documents, as `producer/submit.lua` leaves them."""
    numbers = list(range(DOCUMENTS)) * EACH
    random.Random(1).shuffle(numbers)  # noqa: S311 (not for secrets)
    client.sadd(KEYS.queues, queue_member("stub", 0))
    for index, document in enumerate(numbers):
        asked = a_question(
            f"q{index}", index=index, model="stub", prompt=f"document {document:02} " * 500 + f"{index}?"
        )
        client.xadd(STREAM, {"q": encode_question(asked), "r": asked.run})


def reads(client: redis.Redis) -> int:
    """How often the batcher has read; it takes 32 questions at once or more."""
    return int(client.info("commandstats")["cmdstat_xread"]["calls"])


def take(client: redis.Redis, count: int) -> list[bytes]:
    """The first batches, leased for an hour as a worker does."""
    ids: Any = client.lrange(QUEUE, 0, count - 1)
    client.zadd(KEYS.leases("stub"), dict.fromkeys(ids, 1000 * (time.time() + 3600)))
    client.lpop(QUEUE, count)
    return list(ids)


@pytest.mark.parametrize("group_prefixes", [True, False])
def test_questions_to_a_document_are_in_one_batch(
    redis_server: EmbeddedServer, client: redis.Redis, *, group_prefixes: bool
) -> None:
    """But for what had to go before its company was read, a few batches; as they came where that is wanted."""
    submit(client)
    options = BatcherOptions(group_prefixes=group_prefixes, timeout_s=3600.0)
    batcher = Batcher(RedisAddress(redis_server.url), options)
    thread = threading.Thread(target=batcher.serve)
    thread.start()
    try:
        wait_until(lambda: client.llen(QUEUE) >= AT_ONCE, "some go at once")
        enough = reads(client) + DOCUMENTS * EACH // 16
        wait_until(lambda: reads(client) >= enough, "all questions are read")
        ids = take(client, AT_ONCE)
        wait_until(lambda: client.xlen(STREAM) < 16, "no further batch is full")
    finally:
        batcher.stop()
        thread.join()

    ids += take(client, DOCUMENTS * EACH)
    batches = [list(map(decode_question, decode_batch(client.hget(f"rq:job:{one.decode()}", "data")))) for one in ids]  # type: ignore[arg-type]
    indices = [question.index for batch in batches for question in batch]
    read = sum(len({str(question.prompt)[:11] for question in batch}) for batch in batches)
    if group_prefixes:
        assert len(set(indices)) == len(indices) > DOCUMENTS * EACH - 16
        assert read <= DOCUMENTS + (AT_ONCE + 1) * 16
    else:
        assert indices == list(range(DOCUMENTS * EACH))
        assert read > 5 * DOCUMENTS
