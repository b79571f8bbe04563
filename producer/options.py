"""What a producer is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from wire.messages import JsonObject


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How a producer behaves towards the fleet.

    Attributes:
        max_pending_questions, max_pending_bytes: Bounds of what all producers together may have waiting or in work.
        run_window: Most questions of one run that were accepted and whose records its producer has not yet on disk.
        max_models: Most models that questions may name.
        max_packed_bytes: Largest question as it travels; what is larger would be refused by the batcher, as something
            that is no question.
        run_ttl_s: How long a run's keys live without activity.
        lease_s: How long after its death another producer must wait to take over its run from another host.
        patience_s: How long to wait for a Redis that does not answer before giving up (what was accepted is still
            answered).
        wait_for_room: Whether to wait while the fleet has no room for more questions, instead of giving up.
        stop_when_alike: Stop if so many first questions of a file all fail for the same reason; 0 for never.
        priority: Of the questions that bring none; 0 to 9, higher goes first.
        max_tokens_total: Ceiling for the tokens of all lines of a file's run, read and written; 0 for none.
        max_seconds: How long a file's run may ask at most; 0 for as long as it takes.
        sampling: Sampling parameters that go with every question, where it does not bring its own.
    """

    max_pending_questions: int = 200_000
    max_pending_bytes: int = 256 * 1024 * 1024
    run_window: int = 20_000
    max_models: int = 64
    max_packed_bytes: int = 4 * 1024 * 1024
    run_ttl_s: float = 7 * 86_400.0
    lease_s: float = 15.0
    patience_s: float = 600.0
    wait_for_room: bool = True
    stop_when_alike: int = 0
    priority: int = 0
    max_tokens_total: int = 0
    max_seconds: float = 0.0
    sampling: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What a file may ask of this machine.

    Attributes:
        max_question_bytes: Longest entry, in bytes as it stands in the file. Longer ones are passed over without being
            held in memory.
    """

    max_question_bytes: int = 1024 * 1024
