"""A batcher's options."""

from __future__ import annotations

from dataclasses import dataclass

from wire.messages import MAX_PRIORITY


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch.

    Attributes:
        max_questions: At least 1.
        max_bytes: Of the encoded questions together. A single question may exceed it and then gets its own batch.
    """

    max_questions: int = 16
    max_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatcherOptions:
    """How a batcher works.

    Attributes:
        limits: Bounds of one batch.
        timeout_s: Longest wait of a question for others while no worker is hungry.
        linger_s: Longest that it waits once one is.
        group_prefixes: Whether questions that begin alike ride together.
        max_waiting_batches: Most batch jobs of one model in RQ at once; for each step of priority an eighth more. What
            exceeds them waits in the stream. None: 64, or twice the number of workers if that is more.
        max_models: Most models that questions may name.
        max_question_bytes: What is larger is no question.
        run_ttl_s: How long a run's keys live without activity.
        leader_s: Lease of the leading batcher.
        lease_s: That of a worker on a batch.
        heartbeat_s: How often the lease is renewed and lapsed leases of workers are looked for.
        max_dead_letters: Dead letters kept.
        scaled_models: For which something starts workers once there is work; only told in the report.
    """

    limits: BatchLimits = BatchLimits()
    timeout_s: float = 0.5
    linger_s: float = 0.002
    group_prefixes: bool = True
    max_waiting_batches: int | None = None
    max_models: int = 64
    max_question_bytes: int = 4 * 1024 * 1024
    run_ttl_s: float = 7 * 86_400.0
    leader_s: float = 4.0
    lease_s: float = 6.0
    heartbeat_s: float = 1.0
    max_dead_letters: int = 10_000
    scaled_models: tuple[str, ...] = ()

    @property
    def max_queues(self) -> int:
        """Most streams of questions that are read: a model has one for each priority."""
        return self.max_models * (MAX_PRIORITY + 1)
