"""What a stranger may write into the Redis of a fleet: one table, from which the tests are made."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import redis

from tests.builders import a_question
from wire.codec import BATCH_FUNCTION, encode_batch, encode_question
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import WIRE_VERSION

KEYS = Keys()
MODEL = "stub"
IMPORTED = "tests.hostile.imported.call"
NEWER = "left to a worker that speaks it"
OUTLIVES = "ended: no lease of ours lasts that long"
STREAM = KEYS.questions(MODEL, 0)
QUEUE = KEYS.rq_queue(MODEL)
GONE, WRONG_TYPE = "no batch job of that id", "belongs"


class Touch:
    """Whoever unpickles this runs a command that leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._marker}",)


@dataclass(frozen=True, slots=True)
class Attack:
    """Something that a stranger writes.

    Attributes:
        what: In words, for the list that this module prints.
        where: The key, as `wire/keys.py` writes it.
        write: Does it; what is executed of it creates the file.
        reason: Part of the reason of the dead letter that it ends as; empty if it is passed over or repaired.
        becomes: What becomes of it, in words, if it is no dead letter.
    """

    what: str
    where: str
    write: Callable[[redis.Redis, Path], object] = field(repr=False)
    reason: str = ""
    becomes: str = ""


def job(client: redis.Redis, data: bytes | None, **fields: Any) -> None:  # noqa: ANN401 (anything can be in a hash)
    """A job in the queue of batches, as RQ or a stranger would write it."""
    name = os.urandom(8).hex()
    if data is not None:
        fields["data"] = data
    found: dict[Any, Any] = {"status": "queued", "origin": "batchfleet:stub", **fields}
    client.hset(RQ_JOB_PREFIX + name, mapping=found)
    client.rpush(QUEUE, name)


def question(client: redis.Redis, data: bytes, run: str = "nobody") -> None:
    """An entry in the stream of questions."""
    client.sadd(KEYS.queues, f"{MODEL}:0")
    client.xadd(STREAM, {"q": data, "r": run})


def packed(**fields: Any) -> bytes:  # noqa: ANN401 (fields of a question, right or wrong)
    """A question with some fields changed."""
    good = {
        "run": "nobody",
        "index": 0,
        "request_id": "q",
        "model": MODEL,
        "prompt": "?",
        "submitted_at": 0.0,
        "v": WIRE_VERSION,
    }
    return bytes(msgpack.packb({**good, **fields}))


def rq_job(marker: Path) -> bytes:
    """The data of a job of RQ's own, as its default serializer and its compression make it."""
    return zlib.compress(pickle.dumps(("os.system", None, (f"touch {marker}",), {})))


def scores(client: redis.Redis, key: str, values: dict[Any, float]) -> None:
    """Members of a sorted set."""
    client.zadd(key, values)


def nested(depth: int) -> bytes:
    """Lists in lists, in msgpack."""
    return b"\x91" * depth + b"\xc0"


def batch(count: int, data: bytes = b"x") -> bytes:
    """A batch of many questions."""
    return encode_batch([data] * count)


def wrong(client: redis.Redis, key: str, expected: str) -> None:
    """Something of another type under a key."""
    with client.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        if expected == "string":
            pipe.rpush(key, "not yours")
        else:
            pipe.set(key, "not yours")
        pipe.execute()


def last_entry(client: redis.Redis, marker: Path, *, key: str) -> None:
    """After this one, Redis gives a stream no id any more."""
    client.xadd(key, {"q": str(marker)}, id=f"{2**64 - 1}-{2**64 - 1}")


def the_worker(client: redis.Redis) -> str:
    """Name of the worker that reports."""
    names: Any = client.zrange(KEYS.workers, 0, 0)
    return str(names[0].decode()) if names else "nobody"


JOBS = [
    Attack(
        "a job of RQ's that names `os.system`, pickled and compressed",
        "rq:job:ID",
        lambda r, m: job(r, rq_job(m)),
        "not msgpack",
    ),
    Attack("the same, not compressed", "rq:job:ID", lambda r, m: job(r, zlib.decompress(rq_job(m))), "malformed batch"),
    Attack(
        "a job in msgpack that names `os.system`",
        "rq:job:ID",
        lambda r, m: job(r, msgpack.packb(["os.system", None, [f"touch {m}"], {}])),
        "names the function 'os.system'",
    ),
    Attack(
        "the same with a function of this host's",
        "rq:job:ID",
        lambda r, _: job(r, msgpack.packb([IMPORTED, None, [], {}])),
        "names the function",
    ),
    Attack(
        "our function's name with a stranger's arguments",
        "rq:job:ID",
        lambda r, m: job(r, msgpack.packb([BATCH_FUNCTION, None, [f"touch {m}"], {}])),
        "shape of a batch",
    ),
    Attack(
        "a pickle that runs a command when it is read",
        "rq:job:ID",
        lambda r, m: job(r, pickle.dumps(Touch(m))),
        "malformed batch",
    ),
    Attack(
        "callbacks to be imported, on a foreign job",
        "rq:job:ID",
        lambda r, _: job(
            r, b"?", success_callback_name=IMPORTED, failure_callback_name=IMPORTED, stopped_callback_name=IMPORTED
        ),
        "malformed batch",
    ),
    Attack(
        "`meta` that is a pickle, on a foreign job",
        "rq:job:ID",
        lambda r, m: job(r, b"?", meta=pickle.dumps(Touch(m))),
        "malformed batch",
    ),
    Attack(
        "a webhook, a dependency and a retry, on a foreign job",
        "rq:job:ID",
        lambda r, m: job(r, b"?", webhook="http://127.0.0.1:9/", dependency_ids=str(m), retries_left=9, repeats_left=9),
        "malformed batch",
    ),
    Attack(
        "a serializer and a class to be imported, on a foreign job",
        "rq:job:ID",
        lambda r, _: job(r, b"?", serializer=IMPORTED, job_class=IMPORTED),
        "malformed batch",
    ),
    Attack("random bytes", "rq:job:ID", lambda r, _: job(r, b"\xc1\xff\x00\x80" * 100), "malformed batch"),
    Attack("a batch that was cut off", "rq:job:ID", lambda r, _: job(r, encode_batch([packed()])[:-9]), "not msgpack"),
    Attack(
        "a batch of a version to come",
        "rq:job:ID",
        lambda r, _: job(r, msgpack.packb([BATCH_FUNCTION, None, [99, [b"q"]], {}])),
        becomes=NEWER,
    ),
    Attack(
        "a batch of a version that will never be",
        "rq:job:ID",
        lambda r, _: job(r, msgpack.packb([BATCH_FUNCTION, None, [2**40, [b"q"]], {}])),
        "of wire version",
    ),
    Attack(
        "a batch of version 0",
        "rq:job:ID",
        lambda r, _: job(r, msgpack.packb([BATCH_FUNCTION, None, [0, [b"q"]], {}])),
        "wire version 0",
    ),
    Attack("a batch of 100 000 questions", "rq:job:ID", lambda r, _: job(r, batch(100_000)), "65536 are the most"),
    Attack("a batch without questions", "rq:job:ID", lambda r, _: job(r, batch(0)), "one or more"),
    Attack("64 MB of zeros", "rq:job:ID", lambda r, _: job(r, bytes(64_000_000)), "bytes; "),
    Attack(
        "zlib that becomes 1 GB",
        "rq:job:ID",
        lambda r, _: job(r, zlib.compress(bytes(1_000_000)) * 1000),
        "not msgpack",
    ),
    Attack("msgpack nested 100 000 deep", "rq:job:ID", lambda r, _: job(r, nested(100_000)), "not msgpack"),
    Attack(
        "msgpack that promises 4 billion elements",
        "rq:job:ID",
        lambda r, _: job(r, b"\xdd\xff\xff\xff\xff"),
        "not msgpack",
    ),
    Attack("a job without data", "rq:job:ID", lambda r, _: job(r, None), GONE),
    Attack(
        "counts that are no numbers",
        "rq:job:ID",
        lambda r, _: job(r, encode_batch([b"?"]), attempts="many", deaths="nan", questions="-1e9", alone="x"),
        "malformed question",
    ),
    Attack(
        "a string in place of a job",
        "rq:job:ID",
        lambda r, m: (r.set(f"{RQ_JOB_PREFIX}text", str(m)), r.rpush(QUEUE, "text")),
        GONE,
    ),
    Attack("a batch that is not there", "rq:queue:NAMESPACE:MODEL", lambda r, _: r.rpush(QUEUE, "nowhere"), GONE),
    Attack(
        "a batch whose id is 1 MB of bytes",
        "rq:queue:NAMESPACE:MODEL",
        lambda r, _: r.rpush(QUEUE, b"\xff\n\x1b[31m" * 150_000),
        GONE,
    ),
]

QUESTIONS = [
    Attack(
        "an entry without a question",
        "questions:MODEL:P",
        lambda r, m: (r.sadd(KEYS.queues, "stub:0"), r.xadd(STREAM, {"run": str(m)})),
        "without a question",
    ),
    Attack(
        "random bytes", "questions:MODEL:P", lambda r, _: question(r, b"\xc1\xff\x00\x80" * 100), "malformed question"
    ),
    Attack(
        "a pickle that runs a command when it is read",
        "questions:MODEL:P",
        lambda r, m: question(r, pickle.dumps(Touch(m))),
        "malformed question",
    ),
    Attack("a question that was cut off", "questions:MODEL:P", lambda r, _: question(r, packed()[:-5]), "not msgpack"),
    Attack(
        "a question of a version to come", "questions:MODEL:P", lambda r, _: question(r, packed(v=99)), becomes=NEWER
    ),
    Attack(
        "a question of a version that will never be",
        "questions:MODEL:P",
        lambda r, _: question(r, packed(v=2**40)),
        "of wire version",
    ),
    Attack("a question of version 0", "questions:MODEL:P", lambda r, _: question(r, packed(v=0)), "wire version 0"),
    Attack(
        "a field that no question has",
        "questions:MODEL:P",
        lambda r, m: question(r, packed(callback=f"touch {m}")),
        "callback",
    ),
    Attack("a text where a number belongs", "questions:MODEL:P", lambda r, _: question(r, packed(index="0")), "index"),
    Attack("a negative index", "questions:MODEL:P", lambda r, _: question(r, packed(index=-1)), "index"),
    Attack(
        "an index beyond what Redis can address",
        "questions:MODEL:P",
        lambda r, _: question(r, packed(index=2**40)),
        "index",
    ),
    Attack(
        "an index that would take 512 MB of bits",
        "questions:MODEL:P",
        lambda r, _: question(r, packed(index=2**32 - 1)),
        becomes="answered for nobody: no bit is set beyond what its run has asked",
    ),
    Attack(
        "metadata nested 300 deep",
        "questions:MODEL:P",
        lambda r, _: question(r, packed(metadata={"m": msgpack.unpackb(nested(300))})),
        "malformed question",
    ),
    Attack(
        "a run's name that is a path", "questions:MODEL:P", lambda r, _: question(r, packed(run="../../etc")), "run"
    ),
    Attack(
        "a question of 8 MB", "questions:MODEL:P", lambda r, _: question(r, packed(prompt="x" * 8_000_000)), "bytes; "
    ),
    Attack(
        "a good question of a run that nobody opened",
        "questions:MODEL:P",
        lambda r, _: question(r, encode_question(a_question("q", run="nobody"))),
        becomes="answered for nobody: its record is dropped",
    ),
]

CONTENTS = [
    Attack(
        "1 000 names that are no streams",
        "queues",
        lambda r, m: r.sadd(KEYS.queues, *(f"{m}{i}" for i in range(1000)), b"\xff\xfe"),
        becomes="dropped",
    ),
    Attack(
        "2 000 streams of questions",
        "queues",
        lambda r, _: r.sadd(KEYS.queues, *(f"m{i}:0" for i in range(2000))),
        becomes="dropped: nothing is in them",
    ),
    Attack(
        "bytes that are no reason to wake",
        "wake",
        lambda r, m: r.xadd(KEYS.wake, {b"\xff\x00": str(m)}),
        becomes="passed over",
    ),
    Attack(
        "bytes that are no news", "news", lambda r, m: r.xadd(KEYS.news, {b"\xff\x00": str(m)}), becomes="passed over"
    ),
    Attack("a leader without an end", "leader", lambda r, m: r.set(KEYS.leader, str(m)), becomes=OUTLIVES),
    Attack("a leader for a day", "leader", lambda r, m: r.set(KEYS.leader, str(m), ex=86_400), becomes=OUTLIVES),
    Attack("a text where a number belongs", "epoch", lambda r, m: r.set(KEYS.epoch, str(m)), "epoch holds no number"),
    Attack(
        "reports that are not JSON, or not a report",
        "batchers",
        lambda r, m: r.hset(
            KEYS.batchers,
            mapping={"a": b"\xff", "b": "[" * 10_000, "c": "{}", b"\xfe": f'{{"state": "{m}", "at": "now"}}'},
        ),
        becomes="passed over",
    ),
    Attack(
        "hunger without an end",
        "hungry:MODEL",
        lambda r, m: scores(r, KEYS.hungry(MODEL), {str(m): float("inf")}),
        becomes="forgotten with the key's TTL",
    ),
    Attack(
        "a lease for ever on no batch",
        "leases:MODEL",
        lambda r, _: scores(r, KEYS.leases(MODEL), {b"\xff": float("inf"), "gone": 0}),
        becomes="dropped",
    ),
    Attack(
        "batches for newer workers that are none",
        "newer:MODEL",
        lambda r, _: scores(r, KEYS.newer(MODEL), {b"\xff\xfe": float("-inf")}),
        GONE,
    ),
    Attack(
        "suspects that are no batches",
        "suspects:MODEL",
        lambda r, m: r.rpush(KEYS.suspects(MODEL), b"\xff\xfe", str(m)),
        becomes="dropped, with a log line",
    ),
    Attack(
        "isolated batches that are none",
        "isolated:MODEL",
        lambda r, _: r.rpush(KEYS.isolated(MODEL), b"\xff\xfe"),
        GONE,
    ),
    Attack(
        "a worker that isolates for ever",
        "isolating:MODEL",
        lambda r, m: scores(r, KEYS.isolating(MODEL), {str(m): float("inf")}),
        becomes=OUTLIVES,
    ),
    Attack(
        "crashes that nobody counted",
        "crashes:MODEL",
        lambda r, _: r.hset(KEYS.crashes(MODEL), mapping={b"\xff\xfe": b"\xff", "x:a": "9" * 5000, "y": "-1"}),
        becomes="passed over",
    ),
    Attack(
        "a turn that never ends",
        "turn:MODEL",
        lambda r, m: r.set(KEYS.turn(MODEL), str(m)),
        becomes=OUTLIVES,
    ),
    Attack(
        "a quiet that never ends",
        "quiet:MODEL",
        lambda r, m: r.set(KEYS.quiet(MODEL), str(m)),
        becomes=OUTLIVES,
    ),
    Attack(
        "names that are no workers",
        "workers",
        lambda r, _: scores(r, KEYS.workers, {b"\xff\xfe": float("inf"), "x" * 10_000: 1e15}),
        becomes="passed over",
    ),
    Attack(
        "figures that are none",
        "worker:NAME",
        lambda r, _: r.hset(
            KEYS.worker(the_worker(r)),
            mapping={"capacity": "nan", "in_flight": b"\xff", "answers_per_s": "1e999", b"\xfe": "?"},
        ),
        becomes="passed over, and overwritten by the worker's next report",
    ),
    Attack(
        "a GPU that is leased for ever",
        "gpu:UUID",
        lambda r, m: r.set(KEYS.gpu("GPU-2"), str(m)),
        becomes="given an end of a minute, as every lease has one",
    ),
    Attack(
        "an order that nobody knows",
        "control:NAME",
        lambda r, m: r.set(KEYS.control(the_worker(r)), f"touch {m}"),
        becomes="passed over",
    ),
    Attack(
        "texts where numbers belong",
        "pending",
        lambda r, m: r.hset(KEYS.pending, mapping={"questions": str(m), "bytes": "many"}),
        "holds no number",
    ),
    Attack(
        "runs that are none",
        "runs",
        lambda r, m: scores(r, KEYS.runs, {b"\xff\xfe": float("-inf"), str(m): float("inf")}),
        becomes="dropped within a minute or so",
    ),
    Attack(
        "a run without its counts",
        "run:ID",
        lambda r, m: r.hset(KEYS.run("odd"), mapping={"fingerprint": str(m), "cursor": "x"}),
        "run odd is forgotten",
    ),
    Attack(
        "deadlines of streams that are none",
        "expiring",
        lambda r, m: scores(r, KEYS.expiring, {b"\xff": 0, str(m): float("inf")}),
        becomes="dropped",
    ),
    *(
        Attack(
            "an entry with the last id that a stream can have",
            where,
            partial(last_entry, key=key),
            "an entry whose id leaves no room for another",
        )
        for where, key in {"wake": KEYS.wake, "news": KEYS.news, "dead": KEYS.dead, "questions:MODEL:P": STREAM}.items()
    ),
    Attack(
        "a crowd of runs that wait for room",
        "refused",
        lambda r, _: scores(r, KEYS.refused, {f"r{i}": 1e15 for i in range(1000)}),
        becomes="passed over: it says when, and that is in the future; given an end of a minute",
    ),
    Attack(
        "cancelled runs that are none",
        "cancelled",
        lambda r, m: r.sadd(KEYS.cancelled, b"\xff\xfe", str(m)),
        becomes="dropped",
    ),
    Attack(
        "entries that are no letters",
        "dead",
        lambda r, m: r.xadd(KEYS.dead, {b"\xff": str(m), "bytes": "many"}),
        becomes="shown by `batchfleet dead list`",
    ),
    Attack(
        "troubles that are none",
        "troubles",
        lambda r, m: r.xadd(KEYS.troubles, {b"\xff": str(m), "kind": b"\xfe"}),
        becomes="shown by `batchfleet status`",
    ),
    Attack(
        "a count that is no number",
        "engine-deaths",
        lambda r, m: r.hset(KEYS.engine_deaths, MODEL, str(m)),
        "holds no number",
    ),
    Attack(
        "a worker that RQ cannot read",
        "rq:workers",
        lambda r, _: r.sadd("rq:workers", b"\xff\xfe", "rq:worker:\x1b[2J"),
        becomes="passed over",
    ),
    Attack(
        "a key that no table lists",
        "anything:ELSE",
        lambda r, m: r.set("batchfleet:anything:else", str(m)),
        becomes="passed over",
    ),
]

TYPED = {
    "queues": KEYS.queues,
    "wake": KEYS.wake,
    "news": KEYS.news,
    "leader": KEYS.leader,
    "epoch": KEYS.epoch,
    "batchers": KEYS.batchers,
    "hungry:MODEL": KEYS.hungry(MODEL),
    "leases:MODEL": KEYS.leases(MODEL),
    "newer:MODEL": KEYS.newer(MODEL),
    "suspects:MODEL": KEYS.suspects(MODEL),
    "isolated:MODEL": KEYS.isolated(MODEL),
    "isolating:MODEL": KEYS.isolating(MODEL),
    "crashes:MODEL": KEYS.crashes(MODEL),
    "turn:MODEL": KEYS.turn(MODEL),
    "quiet:MODEL": KEYS.quiet(MODEL),
    "workers": KEYS.workers,
    "worker:NAME": KEYS.worker("{worker}"),
    "control:NAME": KEYS.control("{worker}"),
    "gpu:UUID": KEYS.gpu("GPU-1"),
    "pending": KEYS.pending,
    "expiring": KEYS.expiring,
    "refused": KEYS.refused,
    "runs": KEYS.runs,
    "run:ID": KEYS.run("odd"),
    "run:ID:accepted": KEYS.accepted("odd"),
    "run:ID:done": KEYS.done("odd"),
    "run:ID:records": KEYS.records("odd"),
    "run:ID:producer": KEYS.producer("odd"),
    "cancelled": KEYS.cancelled,
    "withdrawn": KEYS.withdrawn,
    "troubles": KEYS.troubles,
    "engine-deaths": KEYS.engine_deaths,
    "dead": KEYS.dead,
    "questions:MODEL:P": STREAM,
    "rq:queue:NAMESPACE:MODEL": QUEUE,
    "rq:queues": "rq:queues",
    "rq:workers": "rq:workers",
}


def _wrong_type(where: str, key: str) -> Attack:
    expected = KEYS.type_of(key) or "?"
    found = "list" if expected == "string" else "string"

    def write(client: redis.Redis, _: Path) -> None:
        wrong(client, key.format(worker=the_worker(client)), expected)

    return Attack(f"a {found} in place of a {expected}", where, write, f"a {found} where a {expected} {WRONG_TYPE}")


TYPES = [_wrong_type(where, key) for where, key in TYPED.items()]
ATTACKS = [*JOBS, *QUESTIONS, *CONTENTS, *TYPES]


def table() -> str:
    """The list, in Markdown."""
    lines = ["| what is written | where | what becomes of it |", "|---|---|---|"]
    for attack in ATTACKS:
        becomes = f"dead letter: “… {attack.reason.strip()} …”" if attack.reason else attack.becomes
        lines.append(f"| {attack.what} | `{attack.where}` | {becomes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
