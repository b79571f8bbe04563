"""How a run stands, in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from batchfleet.humanize import about, count, duration, plural, rate
from batchfleet.runs.eta import EtaEstimator
from batchfleet.status.model import FleetStatus, WorkerStatus
from producer.run_tally import RunTally

SILENT_S = 3.0
"""After so long without an answer, people want to know why."""
SLOW_S = 15.0
STARTING_S = 12.0
"""A fleet that was started with the run may still be importing; before that, nothing is amiss."""
AT_WORK = frozenset({"running", "draining"})
"""States of workers whose engines answer."""
BAR_CHARS, FEWEST_BAR_CHARS = 30, 8
LAG_QUESTIONS = 2000
"""What the fleet's counts, a second old, may differ from ours without other runs being the reason."""


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """One moment of a run.

    Attributes:
        on_disk, answered, failed: Lines in the answers file.
        in_flight, queued: Of those with the fleet; their sum is right, how it divides is a second old.
        of_others: Questions of other runs that the fleet has as well.
        not_sent: Not accepted yet.
        left_s: To the end; None if it is too early to tell, or nothing moves because all workers wait.
        all_wait: Whether every worker's engine waits.
        silent_s: Since the last answer.
    """

    questions: int
    on_disk: int
    answered: int
    failed: int
    in_flight: int
    queued: int
    of_others: int
    not_sent: int
    elapsed_s: float
    questions_per_s: float
    tokens_per_s: float
    left_s: float | None
    all_wait: bool
    silent_s: float
    waiting_for: str
    status: FleetStatus | None

    @classmethod
    def of(cls, tally: RunTally, status: FleetStatus | None, pace: EtaEstimator, *, silent_s: float) -> Self:
        in_engines = sum(worker.in_flight for worker in status.workers) if status else 0
        of_others = max(0, status.pending_questions - tally.with_fleet) if status else 0
        in_flight = min(tally.with_fleet, in_engines)
        states = {worker.state for worker in status.workers} if status else set()
        all_wait = states == {"waiting"}
        return cls(
            questions=tally.questions,
            on_disk=tally.on_disk,
            answered=tally.answered,
            failed=tally.failed,
            in_flight=in_flight,
            queued=tally.with_fleet - in_flight,
            of_others=of_others if of_others > LAG_QUESTIONS + tally.with_fleet // 2 else 0,
            not_sent=max(0, tally.questions - tally.on_disk - tally.with_fleet),
            elapsed_s=tally.elapsed_s,
            questions_per_s=pace.questions_per_s,
            tokens_per_s=pace.tokens_per_s,
            left_s=None if all_wait else pace.left_s(tally.questions - tally.on_disk),
            all_wait=all_wait,
            silent_s=silent_s,
            waiting_for=tally.waiting_for,
            status=status,
        )


def beside_bar(words: str, done: int, of: int, width: int) -> str:
    """The words, after a progress bar if there is room for one.

    The bar is readable without colours too, and as long as a terminal of `width` columns has room for.
    """
    chars = min(BAR_CHARS, width - len(words) - 1)
    if chars < FEWEST_BAR_CHARS:
        return words
    full = chars * done // max(1, of)
    return "█" * full + "░" * (chars - full) + f" {words}"


def times(standing: ProgressSnapshot) -> str:
    """`12 %  1 250 of 10 000   1 min 12 s elapsed, about 8 min left`."""
    return (
        f"{_share(standing)}  {count(standing.on_disk)} of {count(standing.questions)}   "
        f"{duration(standing.elapsed_s)} elapsed, {left(standing)}"
    )


def left(standing: ProgressSnapshot) -> str:
    if standing.on_disk == standing.questions:
        return "done"
    if standing.left_s is None:
        return "no telling how long" if standing.all_wait else "too early to say how long"
    return f"about {about(standing.left_s)} left"


def counts(standing: ProgressSnapshot) -> str:
    parts = [f"answered {count(standing.answered)}", f"failed {count(standing.failed)}"]
    if standing.of_others:
        whose = (
            f"with the fleet {count(standing.in_flight + standing.queued)} "
            f"(beside {count(standing.of_others)} of other runs)"
        )
        parts.append(whose)
    else:
        parts += [f"in flight {count(standing.in_flight)}", f"queued {count(standing.queued)}"]
    return "   ".join([*parts, *([f"not sent yet {count(standing.not_sent)}"] if standing.not_sent else [])])


def speed(standing: ProgressSnapshot) -> str:
    parts = []
    if standing.questions_per_s:
        parts.append(rate(standing.questions_per_s, "questions"))
    if standing.tokens_per_s:
        parts.append(rate(standing.tokens_per_s, "tokens"))
    if standing.status is not None:
        fills = [
            queue.batch_fill
            for queue in standing.status.queues
            if queue.batch_fill is not None and queue.batches_lately
        ]
        parts += [f"batches {sum(fills) / len(fills):.0%} full"] if fills else []
        states = Counter(worker.state for worker in standing.status.workers)
        running = states.pop("running", 0)
        others = "".join(f", {number} {state}" for state, number in sorted(states.items()))
        parts.append(f"{plural(running, 'worker')}{others}")
    return "   ".join(parts) or "no answer yet"


def one_line(standing: ProgressSnapshot) -> str:
    """For logs: everything in one line."""
    line = (
        f"{_share(standing)} of {count(standing.questions)} done: {counts(standing).replace('   ', ', ')}; "
        f"{speed(standing).replace('   ', ', ')}"
    )
    waits = waits_for(standing)
    return f"{line}; {left(standing)}" + (f"; waiting: {waits}" if waits else "")


def waits_for(standing: ProgressSnapshot) -> str:
    """Why nothing moves; empty if something does, or has done so a moment ago."""
    if standing.waiting_for:
        return standing.waiting_for
    status = standing.status
    if standing.silent_s < SILENT_S or status is None or not standing.in_flight + standing.queued:
        return ""
    since = f"no answer for {duration(standing.silent_s)}"
    if absent := _nobody(standing, status):
        return f"{absent} ({since})"
    serving = [worker for worker in status.workers if worker.state in AT_WORK]
    if not serving:
        reason = next((worker.waits_for for worker in status.workers if worker.waits_for), "")
        booting = sum(worker.state == "booting" for worker in status.workers)
        models = _to_be_served(status)
        unserved = _lacks(status, serving) or "no worker reports"
        nobody = f"workers of {', '.join(models)} are being started" if models else unserved
        return reason or (f"{plural(booting, 'engine')} still booting" if booting else f"{nobody} ({since})")
    lacks = _lacks(status, serving)
    if lacks and not standing.in_flight:
        return f"{lacks} ({since})"
    return (
        f"{since}; {plural(len(serving), 'worker')} at work on {count(standing.in_flight)}"
        if standing.silent_s >= SLOW_S
        else ""
    )


def _nobody(standing: ProgressSnapshot, status: FleetStatus) -> str:
    """Who does not report; empty if a batcher leads and, later than at the start, even if no worker does."""
    if standing.elapsed_s < STARTING_S and not (status.leader and status.served_models):
        return f"starting: no {'worker' if status.leader else 'batcher'} has reported yet"
    return "" if status.leader else "no batcher leads, so nothing is handed out"


def _lacks(status: FleetStatus, serving: Sequence[WorkerStatus]) -> str:
    """Why workers that are at work cannot take what waits; empty if some can."""
    queues = [queue for queue in status.queues if queue.waiting_questions or queue.waiting_batches]
    served = {worker.model for worker in serving}.union(_to_be_served(status))
    if unserved := sorted({queue.model for queue in queues} - served):
        return f"no worker serves {', '.join(unserved)}"
    newer = sum(queue.newer_batches for queue in status.queues if queue.unread_by(serving))
    return f"{plural(newer, 'batch', 'batches')} can only be read by workers of a newer version" if newer else ""


def _to_be_served(status: FleetStatus) -> list[str]:
    """Models for which workers are started once there is work."""
    return sorted(status.scaled_models)


def _share(standing: ProgressSnapshot) -> str:
    # Rounded down: 100 % means that nothing is left.
    return f"{int(100 * standing.on_disk / max(1, standing.questions))}%"
