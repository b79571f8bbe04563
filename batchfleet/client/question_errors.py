"""What can go wrong with a question: an exception or a value, as the caller chooses."""

from __future__ import annotations

from typing import Literal

from batchfleet.client.answers import Answer, Failure
from wire.errors import FleetError

Errors = Literal["raise", "return"]
"""What becomes of a failed question: a `QuestionFailedError`, or a `Failure` among the answers."""


class QuestionFailedError(FleetError):
    """A question has no answer and will not get one.

    Attributes:
        failure: The record that says why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"question {failure.id} of run {failure.run} failed: {failure.kind}: {failure.message}")
        self.failure = failure

    def __reduce__(self) -> tuple[type[QuestionFailedError], tuple[Failure]]:
        # Exceptions cross processes with pickle, which would give the message to __init__.
        return type(self), (self.failure,)


def raise_if_failed(result: Answer | Failure, errors: Errors) -> Answer | Failure:
    """Hand a result on, or raise it.

    Raises:
        QuestionFailedError: It is a failure, and `errors` is `raise`.
    """
    if errors == "raise" and isinstance(result, Failure):
        raise QuestionFailedError(result)
    return result


def check_errors(errors: str) -> None:
    """Refuse a slip before anything is sent.

    Raises:
        ValueError: `errors` is neither `raise` nor `return`.
    """
    if errors not in {"raise", "return"}:
        raise ValueError(f"errors is {errors!r}; it must be 'raise' or 'return'")
