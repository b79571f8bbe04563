"""Whether a question is still wanted, and how it ends if not. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from wire.failures import error_of
from wire.messages import ErrorDetail, Failure, Question

CANCELLED = error_of("cancelled", "its run was cancelled")
EXPIRED = error_of("expired", "its deadline passed before a worker could start it")


@dataclass(frozen=True, slots=True)
class Unwanted:
    """What nobody wants any more.

    Attributes:
        runs: Those that were cancelled, (run, epoch) of each.
        now: Unix time in seconds, on the Redis server's clock; deadlines up to it have passed.
    """

    runs: AbstractSet[tuple[str, str]]
    now: float

    def judge(self, question: Question) -> ErrorDetail | None:
        """Why a question ends; None if it is still wanted."""
        if (question.run, question.epoch) in self.runs:
            return CANCELLED
        return EXPIRED if question.deadline is not None and question.deadline <= self.now else None

    def may_end(self, run: str, deadline: float | None) -> bool:
        """Whether `judge` may find something, by what is known without reading the question."""
        return any(run == name for name, _ in self.runs) or (deadline is not None and deadline <= self.now)


def failure_of(question: Question, error: ErrorDetail) -> Failure:
    """The record of a question that no worker was given."""
    return Failure(
        run=question.run,
        epoch=question.epoch,
        index=question.index,
        request_id=question.request_id,
        attempts=0,
        metadata=question.metadata,
        error=error,
        v=question.v,
    )
