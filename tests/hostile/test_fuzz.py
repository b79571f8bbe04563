"""Ten thousand damaged messages, for the codec and for a worker's intake.

The codec gives a message or MalformedMessageError, the intake a batch or a dead letter.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis
import redis.asyncio

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.claims import Intake
from gpu_worker.options import WorkerOptions
from tests.builders import a_question, an_answer
from tests.hostile.attacks import KEYS, MODEL, QUEUE, packed
from wire.codec import (
    decode_batch,
    decode_question,
    decode_record,
    encode_batch,
    encode_question,
    encode_record,
    identify_question,
)
from wire.errors import MalformedMessageError
from wire.keys import RQ_JOB_PREFIX

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
MUTANTS = 10_000
JOBS_WRITTEN = 2_000
HALF = 0.5
KINDS_OF_MESSAGE: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = [
    (decode_question, encode_question),
    (decode_record, encode_record),
]
SEED = int(os.environ.get("HOSTILE_SEED", "0")) or random.SystemRandom().randrange(2**32)
INTERESTING = (
    0x00,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0x9F,
    0xA0,
    0xC0,
    0xC1,
    0xC4,
    0xC6,
    0xC7,
    0xCA,
    0xCB,
    0xCF,
    0xD3,
    0xD6,
    0xD9,
    0xDB,
    0xDD,
    0xDF,
    0xFF,
)
"""First bytes of each kind of msgpack value, and the one that means nothing."""


VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, math.nan, math.inf, 1e308,
    "", "x", "\x00", "../..", "a" * 5000, b"", b"\xff",
    [], {}, [[]], {"a": None}, {"": {}}, [{"role": "user", "content": "?"}], [None],
    msgpack.unpackb(b"\x91" * 200 + b"\xc0"),
]  # fmt: skip


def seeds() -> list[bytes]:
    """Good messages to damage, and what was found to be interesting before."""
    questions = [
        encode_question(a_question("q1")),
        encode_question(a_question("q2", messages=[{"role": "user", "content": "?"}], metadata={"a": [1]})),
    ]
    return [*questions, encode_record(an_answer()), encode_batch(questions), *(path.read_bytes() for path in CORPUS)]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same with one to four things wrong."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(made) + 1)
        match chance.randrange(6):
            case 0:
                del made[place:]
            case 1:
                made[place:place] = chance.randbytes(chance.randint(1, 8))
            case 2:
                made[place : place + 1] = bytes([chance.choice(INTERESTING)])
            case 3:
                del made[place : place + chance.randint(1, 16)]
            case 4:
                made += made[: chance.randrange(64)]
            case _:
                made[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(made)


def misfilled(data: bytes, chance: random.Random) -> bytes:
    """The same in good msgpack, with one to three fields that hold something else."""
    fields: Any = msgpack.unpackb(data)
    for _ in range(chance.randint(1, 3)):
        fields[chance.choice(sorted(fields))] = chance.choice(VALUES)
    return bytes(msgpack.packb(fields))


def mutants(count: int) -> Iterator[bytes]:
    """Damaged messages, the same for the same seed; the seed is printed, and shown if a test fails."""
    print(f"HOSTILE_SEED={SEED}")
    chance, known = random.Random(SEED), seeds()  # noqa: S311 (not a secret)
    for _ in range(count):
        yield (
            damaged(chance.choice(known), chance)
            if chance.random() < HALF
            else misfilled(chance.choice(known[:3]), chance)
        )


def test_the_codec_gives_a_message_or_says_that_there_is_none() -> None:
    """No other exception for any of ten thousand inputs, and what is decoded is encoded and read again as the same."""
    decoded = 0
    for data in [*seeds(), *mutants(MUTANTS)]:
        identify_question(data)
        with contextlib.suppress(MalformedMessageError):
            batch = decode_batch(data)
            assert all(isinstance(question, bytes) for question in batch)
        for decode, encode in KINDS_OF_MESSAGE:
            message: Any = None
            with contextlib.suppress(MalformedMessageError):
                message = decode(data)
            if message is not None:
                again = encode(message)
                # Compared as bytes: what is not a number does not equal itself.
                assert encode(decode(again)) == again
                decoded += 1
    # If nearly nothing could be read, this would test little. Of ten thousand, 199 to 277 were read with 15 seeds.
    assert decoded > MUTANTS / 100


async def test_a_workers_intake_takes_what_is_good_and_puts_aside_the_rest(
    redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Thousands of damaged jobs: each is claimed or a dead letter, and a good one behind them is still found."""
    good = encode_batch([encode_question(a_question("the good one"))])
    with client.pipeline(transaction=False) as pipe:
        for number, data in enumerate([*mutants(JOBS_WRITTEN), good]):
            pipe.hset(f"{RQ_JOB_PREFIX}{number}", mapping={"data": data, "questions": 1})
            pipe.rpush(QUEUE, number)
        pipe.execute()
    aclient = redis.asyncio.Redis.from_url(redis_server.url, protocol=2)
    intake = Intake(aclient, KEYS, MODEL, "worker", WorkerOptions(max_dead_letters=100_000))

    batches = [batch for _ in range(JOBS_WRITTEN) if client.llen(QUEUE) for batch in await intake.claim(64)]

    await aclient.aclose()
    assert "the good one" in {question.request_id for question, _ in batches[-1].questions}
    letters: Any = client.xrange(KEYS.dead)
    whole = sum(fields[b"batch"] != b"" for _, fields in letters)
    assert len(batches) + whole >= JOBS_WRITTEN
    assert all(fields[b"reason"] for _, fields in letters)
    assert client.zcard(KEYS.leases(MODEL)) == len(batches)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_interesting_once_is_refused(path: Path) -> None:
    """The corpus holds what a fuzzer is not likely to find: each is neither question, record nor batch."""
    data = path.read_bytes()
    for decode in (decode_question, decode_record, decode_batch):
        with pytest.raises(MalformedMessageError):
            decode(data)


def test_the_seed_makes_the_same_inputs_again() -> None:
    """A failure that shows its seed can be repeated."""
    assert list(mutants(50)) == list(mutants(50))


def write_corpus() -> None:
    """How tests/hostile/corpus was made: `python -m tests.hostile.test_fuzz`."""
    folder = Path(__file__).parent / "corpus"
    whole = encode_question(a_question("q1"))
    made = {
        "empty": b"",
        "cut": whole[:-3],
        "two-messages": whole + whole,
        "never-used-byte": b"\xc1",
        "promises-4-billion": b"\xdf\xff\xff\xff\xff",
        "nested-2000": b"\x91" * 2000,
        "map-nested-600": b"\x81\xa1v" * 600 + b"\xc0",
        "extension": b"\xc7\x04\x01abcd",
        "timestamp-version": b"\x81\xa1v\xd6\xff\x00\x00\x00\x00",
        "bad-utf8": b"\x82\xa1v\x01\xa6prompt\xa2\xff\xfe",
        "surrogate": b"\x82\xa1v\x01\xa6prompt\xa3\xed\xa0\x80",
        "key-is-no-text": b"\x82\xa1v\x01\x07\x08",
        "same-key-twice": b"\x82\xa1v\x01\xa1v\x02",
        "true-as-version": b"\x81\xa1v\xc3",
        "index-as-float": packed(index=0.0),
        "index-of-65-bits": packed(index=2**64 - 1),
        "batch-in-batch": encode_batch([encode_batch([whole])])[:-1],
    }
    for name, data in made.items():
        (folder / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    write_corpus()
