"""What the fleet is doing, read from Redis in two round trips and without changing anything.

What is found there is not believed: a field that is no number reads as 0, a key of another type as if it were not there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from batchfleet.status.model import (
    BatcherStatus,
    FleetStatus,
    GpuStatus,
    QueueStatus,
    RedisStatus,
    Trouble,
    WorkerStatus,
)
from wire.keys import Keys, parse_queue_member

TROUBLES_SHOWN = 20

# KEYS: streams. Returns the age of each one's oldest entry in ms, or -1 if it is empty; the entries themselves, which may be large, stay there.
_AGES = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ages = {}
for i, key in ipairs(KEYS) do
  local first = redis.call('TYPE', key).ok == 'stream' and redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  ages[i] = first and math.max(0, now - tonumber(string.match(first[1], '^%d+'))) or -1
end
return ages
"""


def read_status(client: redis.Redis, keys: Keys) -> FleetStatus:
    """The state of the fleet."""
    names, members, reports, dead, pending, memory, deaths, troubles, leader, now = _ask(
        client,
        ["ZRANGE", keys.workers, 0, -1],
        ["SMEMBERS", keys.queues],
        ["HGETALL", keys.batchers],
        ["XLEN", keys.dead],
        ["HGET", keys.pending, "questions"],
        ["INFO", "memory"],
        ["HGETALL", keys.engine_deaths],
        ["XREVRANGE", keys.troubles, "+", "-", "COUNT", TROUBLES_SHOWN],
        ["GET", keys.leader],
        ["TIME"],
    )
    batchers = tuple(_batcher(_text(name), report) for name, report in sorted((reports or {}).items()))
    streams: dict[str, list[str]] = defaultdict(list)
    for queue in filter(None, (parse_queue_member(_text(member)) for member in members or ())):
        streams[queue[0]].append(keys.questions(*queue))
    workers, queues = _read_each(client, keys, sorted(map(_text, names or ())), dict(sorted(streams.items())), batchers)
    return FleetStatus(
        queues,
        workers,
        batchers,
        max(0, _int(pending)),
        _int(dead),
        RedisStatus(
            _int((memory or {}).get("used_memory")),
            _int((memory or {}).get("maxmemory")),
            str((memory or {}).get("maxmemory_policy", "")),
        ),
        tuple(_trouble(entry_id, fields, _int(now and now[0])) for entry_id, fields in troubles or ()),
        {_text(model): _int(count) for model, count in (deaths or {}).items()},
        _text(leader or ""),
    )


def _read_each(
    client: redis.Redis,
    keys: Keys,
    names: Sequence[str],
    streams: Mapping[str, list[str]],
    batchers: Sequence[BatcherStatus],
) -> tuple[tuple[WorkerStatus, ...], tuple[QueueStatus, ...]]:
    every_stream = [stream for of_model in streams.values() for stream in of_model]
    per_model = [(keys.rq_queue(model), keys.suspects(model), keys.isolated(model)) for model in streams]
    found = _ask(
        client,
        *(["HGETALL", keys.worker(name)] for name in names),
        *(["XLEN", stream] for stream in every_stream),
        *(["LLEN", key] for three in per_model for key in three),
        *(["ZCARD", keys.newer(model)] for model in streams),
        *(["ZREVRANGE", keys.newer(model), 0, 0, "WITHSCORES"] for model in streams),
        ["EVAL", _AGES, len(every_stream), *every_stream],
    )
    workers = tuple(_worker(name, fields) for name, fields in zip(names, found, strict=False) if fields)
    after = found[len(names) :]
    lengths = dict(zip(every_stream, map(_int, after), strict=False))
    ages = dict(zip(every_stream, after[-1] or (), strict=False))
    lists = list(map(_int, after[len(every_stream) :]))
    newest = after[len(after) - 1 - len(streams) : -1]
    queues = []
    for number, (model, of_model) in enumerate(streams.items()):
        waiting_batches, suspects, isolated = lists[3 * number : 3 * number + 3]
        waiting = sum(lengths[stream] for stream in of_model)
        oldest_s = max(0.0, *(_int(ages.get(stream)) / 1000 for stream in of_model)) if waiting else 0.0
        in_flight = sum(worker.in_flight for worker in workers if worker.model == model)
        newer = (lists[3 * len(streams) + number], _score(newest[number]))
        fill, lately, suspect_batches = _fill(model, batchers), _lately(model, batchers), suspects + isolated
        queues.append(
            QueueStatus(model, waiting, waiting_batches, in_flight, fill, oldest_s, suspect_batches, *newer, *lately)
        )
    return workers, tuple(queues)


def _ask(client: redis.Redis, *commands: Sequence[Any]) -> list[Any]:
    """The replies, with None for every one that is an error: a key of the wrong type, a command that our user may not give."""
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        replies: list[Any] = pipe.execute(raise_on_error=False)
    if replies and all(isinstance(reply, Exception) for reply in replies):
        raise replies[0]
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def _worker(name: str, raw: Mapping[bytes, bytes]) -> WorkerStatus:
    fields = {_text(key): _text(value) for key, value in raw.items()}
    gpu_use = [one for one in _list(fields.get("gpu_use")) if isinstance(one, dict)]
    return WorkerStatus(
        name,
        fields.get("state", "?"),
        fields.get("model", "?"),
        fields.get("engine", "?"),
        fields.get("waits_for", ""),
        tuple(gpu for gpu in fields.get("gpus", "").split(",") if gpu),
        failures={str(kind): _int(count) for kind, count in _dict(fields.get("failures")).items()},
        gpu_use=tuple(
            GpuStatus(
                str(one.get("uuid")),
                _int(one.get("memory_used_bytes")),
                _int(one.get("memory_bytes")),
                _int(one.get("busy_percent")),
            )
            for one in gpu_use
        ),
        wire_version=_int(fields.get("wire_version")),
        metrics=fields.get("metrics", ""),
        capacity=_int(fields.get("capacity")),
        max_num_seqs=_int(fields.get("max_num_seqs")),
        in_flight=_int(fields.get("in_flight")),
        answered=_int(fields.get("answered")),
        failed=_int(fields.get("failed")),
        answers_per_s=_float(fields.get("answers_per_s")),
        tokens_per_s=_float(fields.get("tokens_per_s")),
        idle_s=_float(fields.get("idle_s")),
    )


def _batcher(name: str, report: bytes) -> BatcherStatus:
    found = _dict(report)
    return BatcherStatus(
        name,
        str(found.get("state", "?")),
        _float(found.get("at")),
        max(1, _int(found.get("batch_size"))),
        _int(found.get("batches")),
        _int(found.get("questions")),
        {str(reason): _int(count) for reason, count in _dict(found.get("by_reason")).items()},
        _dict(found.get("models")),
        str(found.get("metrics", "")),
    )


def _fill(model: str, batchers: Sequence[BatcherStatus]) -> float | None:
    for part in ("lately", "in all"):
        each = [(batcher.batch_size, _handed(batcher, model, part)) for batcher in batchers]
        if room := sum(size * _int(handed.get("batches")) for size, handed in each):
            return round(sum(_int(handed.get("questions")) for _, handed in each) / room, 3)
    return None


def _lately(model: str, batchers: Sequence[BatcherStatus]) -> tuple[int, int, int]:
    each = [_handed(batcher, model, "lately") for batcher in batchers]
    batches, questions, full = (
        sum(_int(handed.get(name)) for handed in each) for name in ("batches", "questions", "full")
    )
    return batches, questions, full


def _handed(batcher: BatcherStatus, model: str, part: str) -> dict[str, Any]:
    of_model = _dict(batcher.models.get(model))
    return _dict(of_model.get("lately")) if part == "lately" else of_model


def _score(reply: Any) -> int:  # noqa: ANN401 (what Redis says)
    """That of the one member in a reply to `ZREVRANGE ... WITHSCORES`; 0 if there is none."""
    return _int(reply[-1]) if reply else 0


def _trouble(entry_id: bytes, raw: Mapping[bytes, bytes], now_s: float) -> Trouble:
    fields = {_text(key): _text(value) for key, value in raw.items()}
    ago_s = max(0.0, now_s - _int(_text(entry_id).partition("-")[0]) / 1000)
    return Trouble(
        fields.get("kind", "?"),
        round(ago_s, 1),
        fields.get("worker", "?"),
        fields.get("model", "?"),
        fields.get("message", ""),
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _int(value: object) -> int:
    return int(_float(value))


def _float(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # Whatever it is: what it cannot take, it refuses.
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if abs(number) < 1e18 else 0.0  # noqa: PLR2004 (neither infinity nor NaN is a count)


def _dict(value: object) -> dict[str, Any]:
    found = _json(value)
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    found = _json(value)
    return found if isinstance(found, list) else []


def _json(value: object) -> object:
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
