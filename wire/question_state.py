"""What the ledger of a run says of single questions, for whoever finds them somewhere in Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from wire.keys import Keys
from wire.messages import Question


class QuestionState(NamedTuple):
    """Whether a question was accepted, and has its record. Neither, if there is another run of the same id by now."""

    is_accepted: bool
    is_done: bool


def ask_states(pipe: Any, keys: Keys, questions: Iterable[Question]) -> None:  # noqa: ANN401 (redis-py's pipeline, blocking or not)
    """Put into a pipeline what `read_states` is to be given the replies of."""
    for question in questions:
        pipe.hget(keys.run(question.run), "epoch")
        pipe.getbit(keys.accepted(question.run), question.index)
        pipe.getbit(keys.done(question.run), question.index)


def read_states(questions: Sequence[Question], replies: Sequence[Any]) -> list[QuestionState]:
    """The state of each question, in their order."""
    states = []
    for question, epoch, accepted, done in zip(questions, replies[::3], replies[1::3], replies[2::3], strict=True):
        is_same_run = (epoch or b"") == question.epoch.encode()
        states.append(QuestionState(is_accepted=is_same_run and bool(accepted), is_done=is_same_run and bool(done)))
    return states
