"""How a run went, for people and for programs, on the screen and beside the answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from batchfleet.humanize import count, duration, plural, rate
from batchfleet.runs.ledger import Ledger
from producer.atomic_file import replacing
from producer.run_tally import RunTally

MESSAGE_CHARS = 200
SUFFIX = ".summary.json"
ENDINGS = {"length": "cut off by max_tokens"}
"""Reasons for the end of an answer, in words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known at the end, or when the command was stopped.

    Attributes:
        gpu_s: Seconds times GPUs that workers held meanwhile; 0 without GPUs.
        ledger: None where Redis was not asked, or did not answer.
    """

    run: str
    model: str
    tally: RunTally
    gpu_s: float = 0.0
    ledger: Ledger | None = None


def as_dict(run: str, tally: RunTally) -> dict[str, str | int | float]:
    """What `--json` prints. Counts are of the whole answers file, the rate of what this call added to it."""
    return {
        "run": run,
        "accepted": tally.questions,
        "answered": tally.answered,
        "failed": tally.failed,
        "elapsed_s": round(tally.elapsed_s, 3),
        "questions_per_s": round(tally.done / tally.elapsed_s, 1) if tally.elapsed_s > 0 else 0.0,
    }


def as_record(outcome: Outcome) -> dict[str, object]:
    """What is saved beside the answers.

    What is above `this_call` is of the whole answers file, the rest of what this call added.
    """
    tally = outcome.tally
    p50, p95 = percentiles(tally)
    failures = {
        kind: {"count": number, "example": {"id": tally.examples[kind][0], "message": tally.examples[kind][1]}}
        for kind, number in tally.kinds.most_common()
    }
    return {
        "run": outcome.run,
        "model": outcome.model,
        "finished": tally.on_disk == tally.questions,
        "questions": tally.questions,
        "answered": tally.answered,
        "failed": tally.failed,
        "this_call": {
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "records": tally.done,
            "elapsed_s": round(tally.elapsed_s, 3),
            "questions_per_s": as_dict(outcome.run, tally)["questions_per_s"],
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "finish_reasons": dict(tally.finish_reasons.most_common()),
            "empty": tally.empty,
            "refusals": tally.refusals,
            "shared": tally.shared,
            "completion_tokens_per_s": round(tally.completion_tokens / tally.elapsed_s, 1)
            if tally.elapsed_s > 0
            else 0.0,
            "latency_p50_s": p50,
            "latency_p95_s": p95,
            "gpu_s": round(outcome.gpu_s, 1),
            "failures": failures,
        },
        "ledger": asdict(outcome.ledger) if outcome.ledger else None,
    }


def save(outcome: Outcome, answers: Path) -> Path | None:
    """Write `as_record` beside the answers, whole or not at all; returns where, or None where that cannot be done.

    The answers matter more.
    """
    path = answers.with_name(answers.name + SUFFIX)
    if not outcome.tally.done and path.exists():
        # Nothing was added: what the call before said of its work still holds.
        return path
    with contextlib.suppress(OSError):
        with replacing(path) as file:
            file.write(f"{json.dumps(as_record(outcome), indent=2, ensure_ascii=False)}\n".encode())
        return path
    return None


def as_text(outcome: Outcome, answers: Path | str, saved: Path | None) -> str:
    """What a person reads at the end."""
    tally, ledger = outcome.tally, outcome.ledger
    head = (
        f"run {outcome.run}: {plural(tally.questions, 'question')}, {count(tally.answered)} answered, "
        f"{count(tally.failed)} failed"
    )
    lines = [head]
    if (resumed := tally.resumed - tally.taken_over) > 0:
        lines.append(f"  resumed   {count(resumed)} of them were in the answers file already")
    if tally.shared:
        lines.append(f"  shared    {count(tally.shared)} of them are answers to identical questions")
    lines += _speed(outcome)
    lines += _endings(tally)
    lines += _failures(tally)
    if ledger is not None:
        lines.append(
            f"  ledger    {count(ledger.accepted)} accepted by the fleet, {ledger.missing} missing, "
            f"{ledger.duplicates} duplicates"
        )
    lines.append(f"  answers   {answers}")
    if saved is not None:
        lines.append(f"  summary   {saved}")
    return "\n".join(lines)


def percentiles(tally: RunTally) -> tuple[float | None, float | None]:
    """The median and the 95th percentile of the latest answers' latencies, in seconds; None without answers."""
    if not tally.latencies:
        return None, None
    ordered = sorted(tally.latencies)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]


def _speed(outcome: Outcome) -> Iterator[str]:
    tally, elapsed_s = outcome.tally, outcome.tally.elapsed_s
    if tally.done and elapsed_s > 0:
        took = f"{elapsed_s:.1f} s" if elapsed_s < 60 else duration(elapsed_s)  # noqa: PLR2004 (a minute)
        yield f"  speed     {rate(tally.done / elapsed_s, 'questions')}, {count(tally.done)} in {took}"
    if tally.completion_tokens:
        written = f"{count(tally.completion_tokens)} written, {rate(tally.completion_tokens / elapsed_s, 'tokens')}"
        yield f"  tokens    {count(tally.prompt_tokens)} read, {written}"
    p50, p95 = percentiles(tally)
    if p50 is not None and p95 is not None:
        of = (
            f" (latest {count(len(tally.latencies))} answers)" if len(tally.latencies) == tally.latencies.maxlen else ""
        )
        yield f"  latency   p50 {p50:.2f} s, p95 {p95:.2f} s, from submission to answer, queueing included{of}"
    if outcome.gpu_s >= 1 and tally.done:
        yield (
            f"  GPUs      {count(outcome.gpu_s)} GPU-seconds were held by workers, {outcome.gpu_s / tally.done:.3f} "
            "per question"
        )


def _endings(tally: RunTally) -> Iterator[str]:
    """Of the answers, those to look at: what holds nothing, and what ended otherwise than the model wanted."""
    found = {
        "empty": tally.empty,
        "refused by the model": tally.refusals,
        **{ENDINGS.get(reason, reason): number for reason, number in tally.finish_reasons.most_common()},
    }
    told = [f"{count(number)} {ending}" for ending, number in found.items() if number and ending != "stop"]
    if told:
        yield f"  of these  {', '.join(told)}"


def _failures(tally: RunTally) -> Iterator[str]:
    for kind, number in tally.kinds.most_common():
        request_id, message = tally.examples[kind]
        yield f"  failed    {count(number)} x {kind}, such as {request_id}: {message[:MESSAGE_CHARS]}"
    before = tally.failed - sum(tally.kinds.values())
    if before:
        yield f"  failed    {count(before)} before this call; the answers file has their reasons"
