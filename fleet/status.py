"""`batchfleet status`: what the fleet is doing, read from Redis without changing anything."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import redis

from wire.keys import Keys, parse_queue_member


def read_status(client: redis.Redis, keys: Keys) -> dict[str, Any]:
    """The state of the fleet, as `status --json` prints it."""
    workers = _workers(client, keys)
    batchers = [{"name": name.decode(), **json.loads(report)} for name, report in sorted(client.hgetall(keys.batchers).items())]  # type: ignore[union-attr]
    queues = _queues(client, keys, workers, batchers)
    return {"queues": queues, "workers": workers, "batchers": batchers, "advice": advice(queues, workers, batchers)}


def advice(queues: list[dict[str, Any]], workers: list[dict[str, Any]], batchers: list[dict[str, Any]]) -> list[str]:
    """What a person should look into, with the figures it comes from."""
    found = []
    if not any(batcher["state"] == "leading" for batcher in batchers):
        found.append(f"no batcher leads ({len(batchers)} known): questions are accepted but not handed out; start `batchfleet batcher`")
    served = {worker["model"] for worker in workers}
    for queue in queues:
        waiting = queue["waiting_questions"]
        if waiting and queue["model"] not in served:
            found.append(f"{waiting} questions wait for {queue['model']}, which no worker serves; start one, or cancel the run")
    return found


def _workers(client: redis.Redis, keys: Keys) -> list[dict[str, Any]]:
    names = [name.decode() for name in client.zrange(keys.workers, 0, -1)]  # type: ignore[union-attr]
    found = []
    for name in sorted(names):
        fields = {key.decode(): value.decode() for key, value in client.hgetall(keys.worker(name)).items()}  # type: ignore[union-attr]
        if not fields:
            continue
        found.append(
            {
                "name": name,
                "state": fields.get("state", "?"),
                "waits_for": fields.get("waits_for", ""),
                "model": fields.get("model", "?"),
                "engine": fields.get("engine", "?"),
                "gpus": [gpu for gpu in fields.get("gpus", "").split(",") if gpu],
                "capacity": int(fields.get("capacity", 0)),
                "in_flight": int(fields.get("in_flight", 0)),
                "answered": int(fields.get("answered", 0)),
                "answers_per_s": float(fields.get("answers_per_s", 0)),
            }
        )
    return found


def _queues(client: redis.Redis, keys: Keys, workers: list[dict[str, Any]], batchers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    streams: dict[str, list[str]] = defaultdict(list)
    members: Any = client.smembers(keys.queues)
    for member in members:
        queue = parse_queue_member(member.decode("utf-8", "replace"))
        if queue is not None:
            streams[queue[0]].append(keys.questions(*queue))
    fill = _batch_fill(batchers)
    return [
        {
            "model": model,
            "waiting_questions": sum(int(client.xlen(stream)) for stream in streams[model]),
            "waiting_batches": client.llen(keys.rq_queue(model)),
            "in_flight_questions": sum(worker["in_flight"] for worker in workers if worker["model"] == model),
            "batch_fill": fill,
        }
        for model in sorted(streams)
    ]


def _batch_fill(batchers: list[dict[str, Any]]) -> float | None:
    """Questions per batch against the most that fit, over what all batchers have handed over; None before the first batch."""
    room = sum(batcher["batches"] * batcher["batch_size"] for batcher in batchers)
    return round(sum(batcher["questions"] for batcher in batchers) / room, 3) if room else None
