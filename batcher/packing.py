"""Which questions share a batch, and when it goes. Pure: no Redis, no clock of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from batcher.options import BatcherOptions, BatchLimits
from batcher.prefixes import Prefix, shared

SOONEST_LOOK_S = 0.005
LATEST_LOOK_S = 0.1
"""Bounds on how soon to look again when all batch slots are taken.

A worker that finds nothing to take wakes the batcher before that.
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question that waits for its batch; it stays encoded.

    Attributes:
        entry_id: Its place in the stream.
        data: The encoded question.
        since: When this batcher first saw it, in seconds on a monotonic clock.
        run: Whose turn it takes.
        prefix: How its text begins.
    """

    entry_id: bytes
    data: bytes
    since: float
    run: bytes = b""
    prefix: Prefix = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand of the workers of one model.

    Attributes:
        waiting_batches: Batch jobs that no worker has taken yet.
        hungry: Workers that have room and found nothing to take.
        workers: All that report, of any model.
        look_again_s: How soon it is worth looking again if all batch slots are taken.
    """

    waiting_batches: int = 0
    hungry: int = 0
    workers: int = 0
    look_again_s: float = SOONEST_LOOK_S


@dataclass(frozen=True, slots=True)
class PackingPlan:
    """What to do about one queue now.

    Attributes:
        batches: To be handed over, in this order.
        recheck_s: Seconds until the next decision if nothing new comes; None if only something new can change the plan.
    """

    batches: list[list[Waiting]] = field(default_factory=list)
    recheck_s: float | None = None


FEWEST_WAITING = 64
"""Batches that may wait for few workers.

Twice as many as there are workers must be able to wait: their engines' spare room is filled from a backlog only, which
is more batches than workers, and a batcher that is held up for a moment lets nobody go short.
"""
GATHERING_QUESTIONS = 64
"""In batches that wait for few workers while company may still come; more would go before it came."""
GATHERING_LOOK_S = 0.02
"""How soon to look again then, at the soonest. A worker that goes short wakes the batcher before that."""
URGENT_S = 0.05
"""Longest that questions of a priority above 0 wait for company: fewer in a batch is a small price for being early."""


def pack(waiting: Sequence[Waiting], limits: BatchLimits) -> list[list[Waiting]]:
    """Split questions into batches, in the order given.

    A question that alone exceeds `limits.max_bytes` gets a batch of its own: whether it fits the model is for the
    worker to say.

    Returns:
        Batches of 1 to `limits.max_questions` questions; every question in exactly one; empty if `waiting` is. All but
        the last are full: no further question would fit; or at least half full, where the next begins with questions
        that have more of a prefix in common with each other than with these.
    """
    batches: list[list[Waiting]] = []
    size = 0
    for question in waiting:
        length = len(question.data)
        if not batches or len(batches[-1]) >= limits.max_questions or size + length > limits.max_bytes:
            moved = _company(batches[-1], question) if batches else []
            size = sum(len(one.data) for one in moved)
            if size + length > limits.max_bytes:
                moved, size = [], 0
            if moved:
                del batches[-1][-len(moved) :]
            batches.append(moved)
        batches[-1].append(question)
        size += length
    return batches


def _company(batch: Sequence[Waiting], following: Waiting) -> list[Waiting]:
    """The last questions of a batch that should rather ride with the one that follows, at most half of them.

    Two workers that answer questions about one document each have to read it. So a batch ends where neighbours have
    least in common.
    """
    best, cut = shared(batch[-1].prefix, following.prefix), len(batch)
    for at in range(len(batch) - 1, len(batch) - len(batch) // 2 - 1, -1):
        if best == 0:
            break
        if (common := shared(batch[at - 1].prefix, batch[at].prefix)) < best:
            best, cut = common, at
    return list(batch[cut:])


def is_full(batch: Sequence[Waiting], limits: BatchLimits) -> bool:
    """Whether no further question could join, however small."""
    return len(batch) >= limits.max_questions or sum(len(question.data) for question in batch) >= limits.max_bytes


def most_waiting(max_waiting_batches: int | None, priority: int, workers: int = 0) -> int:
    """How many batch jobs of a model may wait for this priority to add to them.

    Each priority has some room beyond the one below it: a backlog that has filled its own leaves the urgent theirs.

    Args:
        max_waiting_batches: The bound of the lowest priority; None for one that grows with the number of workers.
    """
    most = max_waiting_batches or max(FEWEST_WAITING, 2 * workers)
    return most + priority * -(-most // 8)


def room_for(demand: Demand, options: BatcherOptions, priority: int = 0) -> int:
    """How many batches may be handed over now; below 1 for none."""
    return most_waiting(options.max_waiting_batches, priority, demand.workers) - demand.waiting_batches


def while_gathering(demand: Demand, options: BatcherOptions) -> tuple[Demand, BatcherOptions]:
    """Both as they are for questions that are better kept until others come that begin like them.

    Fewer batches may wait, and as they are taken sooner, it is looked sooner.
    """
    most = most_waiting(options.max_waiting_batches, 0, demand.workers)
    few = min(most, max(-(-GATHERING_QUESTIONS // options.limits.max_questions), 2 * demand.workers))
    look_s = min(demand.look_again_s, max(GATHERING_LOOK_S, demand.look_again_s * few / most))
    return replace(demand, look_again_s=look_s), replace(options, max_waiting_batches=few)


def company_s(options: BatcherOptions, priority: int) -> float:
    """Longest that a question waits for company, in seconds."""
    return min(options.timeout_s, URGENT_S) if priority else options.timeout_s


def look_again_s(slots: int, taken: int, in_s: float) -> float:
    """Seconds until a quarter of the batch slots will be free, if workers continue at their present pace.

    That is the pace of the last `in_s` seconds, in which they took `taken` batches. Looking more often costs a busy
    machine more than it brings: vLLM needs some 300 ms for a batch of 8 that 64 others wait behind.
    """
    return min(max(slots / 4 * in_s / max(taken, 1), SOONEST_LOOK_S), LATEST_LOOK_S)


def plan(
    waiting: Sequence[Waiting],
    demand: Demand,
    options: BatcherOptions,
    now: float,
    priority: int = 0,
    *,
    more: bool = False,
) -> PackingPlan:
    """Decide which batches of one queue to hand over now.

    Full batches go at once, as long as there is `room_for` them. The incomplete one goes when its oldest
    question has waited `options.timeout_s`, or `URGENT_S` if it is of a priority above 0, or `options.linger_s` if a
    worker is hungry and no batch job waits for it.

    Args:
        more: Whether others stand behind these, so that the last batch only looks incomplete.
    """
    room = room_for(demand, options, priority)
    if not waiting:
        return PackingPlan()
    if room <= 0:
        return PackingPlan(recheck_s=demand.look_again_s)
    batches = pack(waiting, options.limits)
    full = len(batches) if not more and is_full(batches[-1], options.limits) else len(batches) - 1
    if full >= room:
        return PackingPlan(batches[:room], recheck_s=demand.look_again_s if len(batches) > room else None)
    if full == len(batches) or (more and full):
        return PackingPlan(batches[:full])
    hungry = demand.hungry > 0 and demand.waiting_batches + full == 0
    longest_s = company_s(options, priority)
    left_s = (
        min(question.since for question in batches[-1])
        + (min(options.linger_s, longest_s) if hungry else longest_s)
        - now
    )
    if left_s <= 0:
        return PackingPlan(batches)
    return PackingPlan(batches[:full], recheck_s=left_s)
