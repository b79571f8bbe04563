"""A worker's options."""

from __future__ import annotations

from dataclasses import dataclass

SPARE_SHARE = 0.5
"""How many questions may wait inside of the engine, as a share of `max_num_seqs`.

Then no step runs short while the next batch is on its way.
"""


def default_capacity(max_num_seqs: int) -> int:
    """Most questions in flight, unless a user says otherwise.

    These are what the engine works on at once, and half as many that wait in it. On two cores, vLLM with 64 sequences
    and batches of 8 reached 0.65 of its own rate with 64 in flight; see docs/design/performance.md.
    """
    return max_num_seqs + int(max_num_seqs * SPARE_SHARE)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works; its engine has options of its own.

    Attributes:
        capacity: Most questions in flight in the engine; None for `default_capacity`.
        lease_s: How long a batch stays this worker's without being renewed.
        heartbeat_s: How often leases are renewed; at most a third of `lease_s`.
        stall_s: With questions in flight and no progress of the engine for this long, the worker gives its work up and
            exits.
        drain_s: How long it may continue with what it holds after being told to stop.
        question_timeout_s: Longest that one question may be in the engine.
        max_attempts: Most tries of a question whose failure may pass.
        run_ttl_s: How long a run's keys live without activity.
        max_dead_letters: Dead letters kept.
        max_dead_letter_bytes: Most bytes of them that are kept whole.
        max_batch_bytes: What is larger is no batch.
    """

    capacity: int | None = None
    lease_s: float = 6.0
    heartbeat_s: float = 1.0
    stall_s: float = 120.0
    drain_s: float = 30.0
    question_timeout_s: float = 3600.0
    max_attempts: int = 6
    run_ttl_s: float = 7 * 86_400.0
    max_dead_letters: int = 10_000
    max_dead_letter_bytes: int = 64 * 1024 * 1024
    max_batch_bytes: int = 16 * 1024 * 1024
