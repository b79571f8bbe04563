"""Conservation, counted independently: from the files, from the raw bitmaps, and from what is left in Redis."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from gpu_worker.engines.engine import Completion
from gpu_worker.engines.stub import StubEngine, StubOptions
from tests.chaos.fleet_under_test import MAX_TOKENS, MIN_TOKENS, MODEL, FleetUnderTest
from tests.chaos.monitor import Instant, Place, bits, see
from tests.chaos.schedule import PRODUCERS
from wire.codec import decode_record
from wire.keys import Keys
from wire.messages import Question

KEYS = Keys()

OWNED = frozenset({KEYS.queues, KEYS.wake, KEYS.epoch, KEYS.pending, KEYS.runs, KEYS.expiring, KEYS.engine_deaths})
"""Keys that may stay for good: the fleet owns them (see wire/keys.py)."""
RQS_OWN = frozenset({"rq:queues", "rq:workers", f"rq:workers:{KEYS.rq_queue_name(MODEL)}"})
"""RQ's lists of queues and workers.

A worker that was killed stays in them until another one reports after its TTL of 30 s.
"""


@dataclass(slots=True)
class Verdict:
    """What became of the questions.

    Attributes:
        lost: Questions without a line in their answers file that can get none any more.
        unfinished: Questions without a line that may still get one: time was up before their producer had ended.
        duplicated: Lines and records beyond one per question.
        wrong: Answers that belong to other questions.
        regenerated: Answers that were made again and dropped.
        findings: Everything that is not as promised, a sentence each; empty if all is well.
    """

    lost: int = 0
    unfinished: int = 0
    duplicated: int = 0
    wrong: int = 0
    regenerated: int = 0
    findings: list[str] = field(default_factory=list)


def check_files(fleet: FleetUnderTest, client: redis.Redis, verdict: Verdict, *, may_expire: bool) -> None:
    """Every question has exactly one line, and it is the answer to that question."""
    seen, waiting = see(client), _waiting_records(client)
    for name in PRODUCERS:
        lines = _lines(fleet.answers(name), verdict.findings)
        counted = Counter(line["id"] for line in lines)
        expected = dict.fromkeys(fleet.ids[name])
        missing = [request_id for request_id in expected if request_id not in counted]
        lost = lost_among(
            {(name, index) for index, request_id in enumerate(expected) if request_id not in counted},
            seen,
            waiting,
            ended=fleet.members[name].ended,
        )
        verdict.lost += len(lost)
        verdict.unfinished += len(missing) - len(lost)
        verdict.duplicated += sum(counted.values()) - len(counted)
        say = verdict.findings.append
        if missing:
            say(f"{name}: {len(missing)} questions have no line, such as {missing[:3]}; {len(lost)} of them are lost")
        if len(counted) < len(lines):
            say(
                f"{name}: {len(lines) - len(counted)} lines too many, such as of "
                f"{[one for one, count in counted.items() if count > 1][:3]}"
            )
        if unknown := [request_id for request_id in counted if request_id not in expected]:
            say(f"{name}: lines of unknown questions: {unknown[:3]}")
        failed = Counter(line["error"]["kind"] for line in lines if line["status"] == "failed")
        if may_expire:
            failed.pop("expired", None)
        if failed:
            say(f"{name}: questions failed that nothing was wrong with: {dict(failed)}")
        if wrong := _wrong_texts(fleet.questions(name), lines):
            verdict.wrong += len(wrong)
            say(f"{name}: answers that belong to other questions: {wrong[:3]}")


def lost_among(
    missing: AbstractSet[Place], seen: Instant, waiting: AbstractSet[Place], *, ended: bool
) -> AbstractSet[Place]:
    """Which of the questions without a line can get none any more.

    Args:
        waiting: Whose record the producer has not taken yet.
        ended: The producer has, and so takes no more. Else those that it has not asked yet, and those that are on
            their way, are not lost: the fleet was too slow, or never started.
    """
    if ended:
        return missing
    nowhere = seen.accepted - seen.done - {*seen.untouched, *seen.begun}
    return missing & (nowhere | (seen.done - waiting))


def check_ledger(fleet: FleetUnderTest, client: redis.Redis, verdict: Verdict) -> None:
    """`batchfleet verify` says what the bitmaps say, bit by bit, and both say that nothing is missing or double."""
    for name in PRODUCERS:
        accepted, done = (_bits(client, key) for key in (KEYS.accepted(name), KEYS.done(name)))
        counted_by_redis = ("accepted", "answered", "failed", "regenerated")
        found: Any = client.hmget(KEYS.run(name), counted_by_redis)
        counts = {field: int(value or 0) for field, value in zip(counted_by_redis, found, strict=True)}
        answered, failed = counts.get("answered", 0), counts.get("failed", 0)
        verdict.regenerated += counts.get("regenerated", 0)
        duplicates = answered + failed - len(accepted & done)
        verdict.duplicated += max(0, duplicates)
        counted: dict[str, object] = {"run": name, "accepted": len(accepted), "answered": answered, "failed": failed}
        counted |= {"missing": len(accepted - done), "duplicates": duplicates}
        said = fleet.command("verify", name, "--json", name=f"verify-{name}")[1].strip()
        if not said.startswith("{") or json.loads(said) != counted:
            verdict.findings.append(f"{name}: verify says {said}, counted independently: {counted}")
        # What Redis lost after its line was on disk is not asked again.
        is_whole = len(accepted) == len(fleet.ids[name]) or fleet.rolled_back
        if counted["missing"] or counted["duplicates"] or not is_whole or done - accepted:
            verdict.findings.append(
                f"{name}: of {len(fleet.ids[name])} questions the ledger has {counted}, {len(done - accepted)} done "
                "unaccepted"
            )
        if counts.get("accepted") != len(accepted):
            verdict.findings.append(
                f"{name}: the count of accepted questions says {counts.get('accepted')}, the bitmap {len(accepted)}"
            )


def left_in_queues(client: redis.Redis, *, may_have_records: bool = False) -> list[str]:
    """What is still in any queue, registry, lease or stream, though every question has its record.

    Args:
        may_have_records: Redis has lost its last writes, among them that a producer, which has ended, had everything;
            its records then wait for their TTL.
    """
    left = [
        f"{key} still exists"
        for key in _keys(client, "rq:*")
        if key not in RQS_OWN and not key.startswith("rq:worker:")
    ]
    left += [
        f"{client.xlen(key)} questions in {key}"
        for key in _keys(client, f"{KEYS.namespace}:questions:*")
        if client.xlen(key)
    ]
    left += [f"{client.zcard(key)} leases in {key}" for key in _keys(client, KEYS.leases("*"))]
    left += [f"batches in {key}" for names in (KEYS.suspects, KEYS.isolated) for key in _keys(client, names("*"))]
    left += [
        f"{client.xlen(KEYS.records(name))} records in {KEYS.records(name)}"
        for name in PRODUCERS
        if client.xlen(KEYS.records(name)) and not may_have_records
    ]
    pending: Any = client.hgetall(KEYS.pending)
    if any(int(count) for count in pending.values()):
        left.append(f"pending counts {pending}")
    letters: Any = client.xrange(KEYS.dead, count=3)
    return [*left, *(f"a dead letter: {fields[b'reason'].decode()}" for _, fields in letters)]


def left_without_owner(client: redis.Redis) -> list[str]:
    """Keys that would stay for ever after all programs have ended, and that nobody owns."""
    found = []
    for key in _keys(client, "*"):
        owned = key in OWNED | RQS_OWN or (
            key.startswith(f"{KEYS.namespace}:questions:{MODEL}:") and not client.xlen(key)
        )
        if not owned and client.ttl(key) == -1:
            found.append(f"{key} has neither owner nor TTL")
    return found


def _waiting_records(client: redis.Redis) -> set[Place]:
    found = set()
    for name in PRODUCERS:
        entries: Any = client.xrange(KEYS.records(name))
        records = (decode_record(fields[b"a"]) for _, fields in entries)
        found |= {(record.run, record.index) for record in records}
    return found


def _keys(client: redis.Redis, pattern: str) -> list[str]:
    found: Any = client.scan_iter(pattern)
    return sorted(key.decode() for key in found)


def _lines(path: Path, findings: list[str]) -> list[dict[str, Any]]:
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            findings.append(f"{path.name}:{number} is not JSON: {line[:60]!r}")
    return lines


def _wrong_texts(questions: Path, lines: list[dict[str, Any]]) -> list[str]:
    prompts = {
        asked["id"]: asked["question"] for asked in map(json.loads, questions.read_text(encoding="utf-8").splitlines())
    }

    async def wrong() -> list[str]:
        engine = StubEngine(StubOptions(min_tokens=MIN_TOKENS, max_tokens=MAX_TOKENS))
        found = []
        for line in lines:
            if line["status"] == "answered" and line["id"] in prompts:
                question = Question(
                    run="any", index=0, request_id=line["id"], model=MODEL, prompt=prompts[line["id"]], submitted_at=0.0
                )
                answer = await engine.answer(question)
                if not isinstance(answer, Completion) or answer.texts != [line["text"]]:
                    found.append(line["id"])
        return found

    return asyncio.run(wrong())


def _bits(client: redis.Redis, key: str) -> set[int]:
    data: Any = client.get(key)
    return bits(data or b"")
