"""What the fleet is doing, read from Redis in two round trips and without changing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from batchfleet.status.host_reports import host_status
from batchfleet.status.model import (
    BatcherStatus,
    FleetStatus,
    GpuStatus,
    QueueStatus,
    RedisStatus,
    RunStatus,
    Trouble,
    VanishedStatus,
    WorkerStatus,
)
from batchfleet.status.replies import Batch, Reply, fraction, json_list, json_object, number, text
from wire.keys import Keys, parse_queue_member

TROUBLES_SHOWN = 20
RUNS_SHOWN = 20

# KEYS[1] stream. Returns the age of its oldest entry in ms, or -1 if it is empty; the entry itself, which may be large,
#     stays there.
_AGE = """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return -1 end
local time = redis.call('TIME')
return math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(string.match(first[1], '^%d+')))
"""


def read_status(client: redis.Redis, keys: Keys) -> FleetStatus:
    """The state of the fleet."""
    batch = Batch(client)
    names = batch.ask("ZRANGE", keys.workers, 0, -1, "WITHSCORES")
    members = batch.ask("SMEMBERS", keys.queues)
    reports = batch.ask("HGETALL", keys.batchers)
    latest_runs = batch.ask("ZREVRANGE", keys.runs, 0, RUNS_SHOWN - 1, "WITHSCORES")
    dead_letters = batch.ask("XLEN", keys.dead)
    pending = batch.ask("HGET", keys.pending, "questions")
    memory = batch.ask("INFO", "memory")
    deaths = batch.ask("HGETALL", keys.engine_deaths)
    troubles = batch.ask("XREVRANGE", keys.troubles, "+", "-", "COUNT", TROUBLES_SHOWN)
    leader = batch.ask("GET", keys.leader)
    hosts = batch.ask("ZRANGE", keys.hosts, 0, -1, "WITHSCORES")
    vanished = batch.ask("HGETALL", keys.vanished)
    time = batch.ask("TIME")
    batch.send()
    now_s = number(time.value[0]) if time.value else 0
    reported = names.scores() | hosts.scores()
    gone = {one.name: one for one in _vanished(vanished.fields(), reported, now_s)}

    batchers = tuple(_batcher(name, report) for name, report in sorted(reports.fields().items()))
    priorities: dict[str, list[int]] = defaultdict(list)
    for model, priority in filter(None, map(parse_queue_member, members.texts())):
        priorities[model].append(priority)
    batch = Batch(client)
    asked_workers = {name: batch.ask("HGETALL", keys.worker(name)) for name in sorted(names.scores())}
    asked_queues = {model: _AskedQueue.of(batch, keys, model, each) for model, each in sorted(priorities.items())}
    asked_hosts = {name: batch.ask("HGETALL", keys.host(name)) for name in sorted(hosts.scores())}
    asked_runs = {run: _AskedRun.of(batch, keys, run, seen_ms / 1000) for run, seen_ms in latest_runs.scores().items()}
    batch.send()
    # The report of who vanished stays for some seconds; what it says is not so any more.
    workers = tuple(
        _worker(name, reply.fields()) for name, reply in asked_workers.items() if reply.value and name not in gone
    )

    return FleetStatus(
        queues=tuple(asked.queue(model, workers, batchers) for model, asked in asked_queues.items()),
        workers=workers,
        batchers=batchers,
        pending_questions=max(0, pending.number()),
        dead_letters=dead_letters.number(),
        redis=_redis(memory.value or {}),
        troubles=tuple(_trouble(entry_id, fields, now_s) for entry_id, fields in troubles.value or ()),
        engine_deaths={model: number(count) for model, count in deaths.fields().items()},
        leader=leader.text(),
        runs=tuple(asked.run(run) for run, asked in asked_runs.items() if asked.fields.value),
        hosts=tuple(
            host_status(name, reply.fields()) for name, reply in asked_hosts.items() if reply.value and name not in gone
        ),
        vanished=tuple(gone.values()),
    )


@dataclass(frozen=True, slots=True)
class _AskedQueue:
    """What was asked of the queue of one model; `streams` and `ages`: one reply for each priority."""

    streams: list[Reply]
    ages: list[Reply]
    batches: Reply
    suspects: Reply
    isolated: Reply
    newer: Reply
    newest: Reply

    @classmethod
    def of(cls, batch: Batch, keys: Keys, model: str, priorities: Sequence[int]) -> _AskedQueue:
        streams = [keys.questions(model, priority) for priority in priorities]
        return cls(
            streams=[batch.ask("XLEN", stream) for stream in streams],
            ages=[batch.ask("EVAL", _AGE, 1, stream) for stream in streams],
            batches=batch.ask("LLEN", keys.rq_queue(model)),
            suspects=batch.ask("LLEN", keys.suspects(model)),
            isolated=batch.ask("LLEN", keys.isolated(model)),
            newer=batch.ask("ZCARD", keys.newer(model)),
            newest=batch.ask("ZREVRANGE", keys.newer(model), 0, 0, "WITHSCORES"),
        )

    def queue(self, model: str, workers: Sequence[WorkerStatus], batchers: Sequence[BatcherStatus]) -> QueueStatus:
        waiting = sum(stream.number() for stream in self.streams)
        lately = [_handed_over(batcher, model, "lately") for batcher in batchers]
        return QueueStatus(
            model,
            waiting_questions=waiting,
            waiting_batches=self.batches.number(),
            in_flight_questions=sum(worker.in_flight for worker in workers if worker.model == model),
            batch_fill=_fill(model, batchers),
            oldest_s=max(0.0, *(age.number() / 1000 for age in self.ages)) if waiting else 0.0,
            suspect_batches=self.suspects.number() + self.isolated.number(),
            newer_batches=self.newer.number(),
            # The version that they need is the score of the one that needs the newest.
            newer_version=max(map(int, self.newest.scores().values()), default=0),
            batches_lately=sum(number(handed.get("batches")) for handed in lately),
            questions_lately=sum(number(handed.get("questions")) for handed in lately),
            full_lately=sum(number(handed.get("full")) for handed in lately),
        )


@dataclass(frozen=True, slots=True)
class _AskedRun:
    """What was asked of one run; `seen_s`: when something last happened to it, by the server's clock."""

    fields: Reply
    holder: Reply
    seen_s: float

    @classmethod
    def of(cls, batch: Batch, keys: Keys, run: str, seen_s: float) -> _AskedRun:
        return cls(batch.ask("HGETALL", keys.run(run)), batch.ask("GET", keys.producer(run)), seen_s)

    def run(self, run: str) -> RunStatus:
        fields = self.fields.fields()
        answered, failed = number(fields.get("answered")), number(fields.get("failed"))
        stream = parse_queue_member(fields.get("stream", ""))
        lasted_s = self.seen_s - number(fields.get("created"))
        return RunStatus(
            run,
            model=stream[0] if stream else str(json_object(fields.get("fingerprint")).get("model", "?")),
            priority=stream[1] if stream else 0,
            questions=number(fields.get("questions")),
            accepted=number(fields.get("accepted")),
            answered=answered,
            failed=failed,
            is_cancelled="cancelled" in fields,
            collected_by=":".join(self.holder.text().split(":")[:2]),
            answers_per_s=round(answered / lasted_s, 3) if lasted_s > 0 else 0.0,
            failures={kind: number(count) for kind, count in _beginning(fields, "failed:")},
            failure_examples=dict(_beginning(fields, "example:")),
        )


def _vanished(entries: Mapping[str, str], reported_ms: Mapping[str, float], now_s: float) -> Iterator[VanishedStatus]:
    """Those that have not reported since; the latest first."""
    for name, text_of in sorted(entries.items(), key=lambda item: -fraction(json_object(item[1]).get("at"))):
        entry = json_object(text_of)
        at_s = fraction(entry.get("at"))
        if reported_ms.get(name, 0.0) / 1000 < at_s + 0.01:
            yield VanishedStatus(
                name,
                str(entry.get("kind", "?")),
                max(0.0, round(now_s - at_s, 1)),
                str(entry.get("model", "")),
                number(entry.get("in_flight")),
                number(entry.get("gpus")),
            )


def _beginning(fields: Mapping[str, str], prefix: str) -> list[tuple[str, str]]:
    """Without it."""
    return [(name.removeprefix(prefix), value) for name, value in fields.items() if name.startswith(prefix)]


def _redis(memory: Mapping[str, Any]) -> RedisStatus:
    return RedisStatus(
        number(memory.get("used_memory")), number(memory.get("maxmemory")), str(memory.get("maxmemory_policy", ""))
    )


def _worker(name: str, fields: Mapping[str, str]) -> WorkerStatus:
    gpu_use = [one for one in json_list(fields.get("gpu_use")) if isinstance(one, dict)]
    return WorkerStatus(
        name,
        fields.get("state", "?"),
        fields.get("model", "?"),
        fields.get("engine", "?"),
        fields.get("waits_for", ""),
        tuple(gpu for gpu in fields.get("gpus", "").split(",") if gpu),
        capacity=number(fields.get("capacity")),
        in_flight=number(fields.get("in_flight")),
        answered=number(fields.get("answered")),
        failed=number(fields.get("failed")),
        failures={kind: number(count) for kind, count in json_object(fields.get("failures")).items()},
        failure_examples={kind: str(words) for kind, words in json_object(fields.get("failure_examples")).items()},
        answers_per_s=fraction(fields.get("answers_per_s")),
        tokens_per_s=fraction(fields.get("tokens_per_s")),
        max_num_seqs=number(fields.get("max_num_seqs")),
        idle_s=fraction(fields.get("idle_s")),
        gpu_use=tuple(map(_gpu, gpu_use)),
        wire_version=number(fields.get("wire_version")),
        metrics=fields.get("metrics", ""),
        clock_ahead_s=fraction(fields.get("clock_ahead_s")),
    )


def _gpu(use: Mapping[str, Any]) -> GpuStatus:
    return GpuStatus(
        str(use.get("uuid")), *(number(use.get(name)) for name in ("memory_used_bytes", "memory_bytes", "busy_percent"))
    )


def _batcher(name: str, report: str) -> BatcherStatus:
    found = json_object(report)
    return BatcherStatus(
        name,
        str(found.get("state", "?")),
        at=fraction(found.get("at")),
        batch_size=max(1, number(found.get("batch_size"))),
        batches=number(found.get("batches")),
        questions=number(found.get("questions")),
        by_reason={reason: number(count) for reason, count in json_object(found.get("by_reason")).items()},
        models=json_object(found.get("models")),
        metrics=str(found.get("metrics", "")),
        scaled_models=tuple(map(str, json_list(found.get("scaled_models")))),
        clock_ahead_s=fraction(found.get("clock_ahead_s")),
    )


def _fill(model: str, batchers: Sequence[BatcherStatus]) -> float | None:
    for part in ("lately", "in all"):
        each = [(batcher.batch_size, _handed_over(batcher, model, part)) for batcher in batchers]
        if room := sum(size * number(handed.get("batches")) for size, handed in each):
            return round(sum(number(handed.get("questions")) for _, handed in each) / room, 3)
    return None


def _handed_over(batcher: BatcherStatus, model: str, part: str) -> dict[str, Any]:
    of_model = json_object(batcher.models.get(model))
    return json_object(of_model.get("lately")) if part == "lately" else of_model


def _trouble(entry_id: bytes, raw: Mapping[bytes, bytes], now_s: float) -> Trouble:
    fields = {text(name): text(value) for name, value in raw.items()}
    ago_s = max(0.0, now_s - number(text(entry_id).partition("-")[0]) / 1000)
    return Trouble(
        fields.get("kind", "?"),
        round(ago_s, 1),
        fields.get("worker", "?"),
        fields.get("model", "?"),
        fields.get("message", ""),
    )
