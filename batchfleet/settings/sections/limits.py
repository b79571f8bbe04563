"""What bounds a fleet, and how soon a program that has stopped working is noticed."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from batchfleet.settings.sections.section import DAY_S, HOUR_S, KIB, MIB, Contradiction, Section, at_most, number_text


class LimitSettings(Section):
    """What bounds a fleet. Reaching a limit slows the producer down or gives a clear error."""

    max_pending_questions: int = Field(
        default=200_000, ge=1, le=100_000_000, description="Maximum questions in Redis without a record, of all runs."
    )
    max_pending_bytes: int = Field(
        default=256 * MIB, ge=KIB, le=1024 * 1024 * MIB, description="Maximum bytes of such questions."
    )
    run_window: int = Field(
        default=20_000,
        ge=1,
        le=100_000_000,
        description="Maximum questions of a run that are accepted and not yet acknowledged by its producer.",
    )
    max_question_bytes: int = Field(
        default=1 * MIB, ge=KIB, le=256 * MIB, description="Maximum bytes of one question, packed."
    )
    max_batch_bytes: int = Field(
        default=4 * MIB,
        ge=KIB,
        le=256 * MIB,
        description="Maximum bytes of a batch; a larger question gets its own batch.",
    )
    max_waiting_batches: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description=(
            "Maximum batches of one model waiting in its RQ queue; "
            "null: 64, or twice the number of workers if that is more."
        ),
    )
    max_models: int = Field(default=64, ge=1, le=10_000, description="Maximum models that questions may name.")
    max_attempts: int = Field(
        default=6, ge=1, le=1000, description="Maximum attempts at a question whose failure may pass."
    )
    question_timeout_s: float = Field(
        default=HOUR_S, gt=0, le=30 * DAY_S, description="Longest time for a question in a worker, in seconds."
    )
    run_ttl_s: float = Field(
        default=7 * DAY_S,
        ge=60,
        le=366 * DAY_S,
        description="How long a run and its records are kept after their last activity, in seconds.",
    )
    max_stdin_bytes: int = Field(
        default=16 * 1024 * MIB,
        ge=KIB,
        le=1024 * 1024 * MIB,
        description="Maximum bytes of questions from standard input, or of a remote file.",
    )
    max_cache_bytes: int = Field(
        default=4 * 1024 * MIB,
        ge=MIB,
        le=1024 * 1024 * MIB,
        description="Maximum bytes in the folder of `--cache`; the least recently used answers go first.",
    )
    max_dead_letter_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        le=1024 * 1024 * MIB,
        description="Maximum bytes of dead letters kept whole; beyond that, each is cut at 64 KiB.",
    )
    max_dead_letters: int = Field(
        default=10_000, ge=1, le=10_000_000, description="Maximum dead letters; the oldest go first."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        for small, large in (
            ("run_window", "max_pending_questions"),
            ("max_question_bytes", "max_pending_bytes"),
            ("max_batch_bytes", "max_pending_bytes"),
            ("question_timeout_s", "run_ttl_s"),
        ):
            yield from at_most(self, small, large)


class LeaseSettings(Section):
    """How soon a program that has stopped working is noticed."""

    batch_s: float = Field(
        default=6.0, gt=0, le=HOUR_S, description="Seconds of silence after which a worker loses its batches."
    )
    leader_s: float = Field(
        default=4.0, gt=0, le=HOUR_S, description="Seconds of silence after which a leading batcher is replaced."
    )
    heartbeat_s: float = Field(default=1.0, gt=0, le=HOUR_S, description="Seconds between renewals of a lease.")
    stall_s: float = Field(
        default=120.0,
        gt=0,
        le=DAY_S,
        description="Seconds without progress of the engine after which a worker gives up its work.",
    )
    drain_s: float = Field(
        default=30.0, ge=0, le=DAY_S, description="Seconds for a worker to finish its work after SIGTERM."
    )
    linger_s: float = Field(
        default=0.002,
        ge=0,
        le=10,
        description="Seconds that the batcher waits for more questions once a worker is hungry.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        for lease in ("batch_s", "leader_s"):
            length = getattr(self, lease)
            # Two renewals may fail and the third still comes in time.
            if self.heartbeat_s > length / 3:
                text = (
                    f"{lease} ({number_text(length)}) is less than three times heartbeat_s "
                    f"({number_text(self.heartbeat_s)}); "
                    f"set {lease} to at least {number_text(3 * self.heartbeat_s)} or lower heartbeat_s"
                )
                yield Contradiction((lease, "heartbeat_s"), text)
        yield from at_most(self, "batch_s", "stall_s")
