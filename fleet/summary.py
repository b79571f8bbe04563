"""How a run went, for people and for programs."""

from __future__ import annotations

from pathlib import Path

from fleet.ledger import Ledger
from producer.stock import Tally


def as_dict(run: str, tally: Tally) -> dict[str, str | int | float]:
    """What `--json` prints. Counts are of the whole answers file, the rate of what this call added to it."""
    done = tally.on_disk - tally.resumed
    return {
        "run": run,
        "accepted": tally.questions,
        "answered": tally.answered,
        "failed": tally.failed,
        "elapsed_s": round(tally.elapsed_s, 3),
        "questions_per_s": round(done / tally.elapsed_s, 1) if tally.elapsed_s > 0 else 0.0,
    }


def as_text(run: str, tally: Tally, answers: Path, ledger: Ledger | None) -> str:
    """What a person reads at the end."""
    lines = [f"run {run}: {tally.questions} questions, {tally.answered} answered, {tally.failed} failed"]
    done = tally.on_disk - tally.resumed
    if tally.resumed:
        lines.append(f"  resumed   {tally.resumed} of them were in the answers file already")
    if done and tally.elapsed_s > 0:
        lines.append(f"  speed     {done / tally.elapsed_s:.0f} questions/s, {done} in {tally.elapsed_s:.1f} s")
    if tally.completion_tokens:
        per_s = tally.completion_tokens / tally.elapsed_s
        lines.append(f"  tokens    {tally.prompt_tokens} read, {tally.completion_tokens} written, {per_s:.0f}/s")
    if tally.latencies:
        ordered = sorted(tally.latencies)
        p50, p95 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
        lines.append(f"  latency   p50 {p50:.2f} s, p95 {p95:.2f} s, from submission to answer, queueing included")
    for kind, count in tally.kinds.most_common():
        request_id, message = tally.examples[kind]
        lines.append(f"  failed    {count} x {kind}, such as {request_id}: {message[:200]}")
    if ledger is not None:
        lines.append(f"  ledger    {ledger.accepted} accepted by the fleet, {ledger.missing} missing, {ledger.duplicates} duplicates")
    lines.append(f"  answers   {answers}")
    return "\n".join(lines)
