"""How the questions of a program become those of a run.

Each has its position, and a resumed run is known by its first questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson
from msgspec.structs import replace

from batchfleet.client.known_ids import KnownIds
from batchfleet.client.questions import QuestionLike, as_asked
from batchfleet.client.session import Session
from producer.questions.question_parser import Invalid, ParsedQuestion, canonical, invalid_id
from producer.questions.samples import ONCE, Samples
from producer.stream_source import PendingQuestion
from wire.errors import UsageError


class QuestionNumbers:
    """Gives the questions of a run their positions, and knows a resumed run by its first questions.

    Args:
        session: Knows the model for questions that name none.
        run: Id of the run, for messages.
        params: For parameters that questions do not bring.
        samples: How often each question is asked.
        resume_at: Position from which on nothing was accepted yet.
        mark: That of the questions before; empty if there are none.
    """

    def __init__(
        self,
        session: Session,
        run: str,
        params: Mapping[str, Any],
        *,
        samples: Samples = ONCE,
        resume_at: int = 0,
        mark: str = "",
    ) -> None:
        self._session = session
        self._run = run
        self._params = dict(params)
        self._samples = samples
        self._questions = 0
        self._resume_at = resume_at
        self._mark = mark
        self._digest = blake2b(digest_size=12)
        self._known = KnownIds()
        self._next = 0

    @property
    def knows_model(self) -> bool:
        """Whether `give` will not have to ask Redis."""
        return self._session.model is not None

    def give(self, question: QuestionLike) -> list[PendingQuestion]:
        """Number the next question, or its samples; without what was accepted in an earlier attempt.

        Raises:
            TypeError: It is nothing that can be asked.
            UsageError: Nothing says which model it is for, the questions of the earlier attempt were others, or the
                samples of the first question would all be the same.
            QueueUnavailableError: Redis cannot be asked which model that is.
        """
        asked = self._unique(as_asked(question, self._questions, self._params, self._session.max_question_bytes))
        if not self._questions and self._samples.each > 1:
            _ensure_samples_differ(asked)
        self._questions += 1
        numbered = map(self._number, self._samples.of(self._samples.checked(asked)))
        return [given for given in numbered if given is not None]

    def _number(self, asked: ParsedQuestion | Invalid) -> PendingQuestion | None:
        self._next += 1
        self._digest.update(orjson.dumps(asked.request_id))
        if isinstance(asked, ParsedQuestion):
            asked = asked if asked.model else replace(asked, model=self._session.find_model())
            self._digest.update(canonical(asked))
        if self._next > self._resume_at:
            return PendingQuestion(asked, self._digest.hexdigest())
        if self._next == self._resume_at and self._digest.hexdigest() != self._mark:
            raise self._others()
        return None

    def end(self) -> None:
        """No more questions come.

        Raises:
            UsageError: There were more in the earlier attempt.
        """
        if self._next < self._resume_at:
            raise self._others()

    def _unique(self, asked: ParsedQuestion | Invalid) -> ParsedQuestion | Invalid:
        if isinstance(asked, Invalid):
            return asked
        # Derived ids hold the position, and meet nothing but an id that was copied from an answer.
        if self._known.add(asked.request_id):
            return asked
        reason = (
            f"its id {asked.request_id!r} is already that of an earlier question; give each question an id of its own, "
            "or none"
        )
        return Invalid(asked.index, asked.line, invalid_id(asked.line), reason)

    def _others(self) -> UsageError:
        return UsageError(
            f"run {self._run} exists, and the first {self._resume_at} questions that it was given are not the first of "
            "these, "
            "or were for another model. Give the same questions in the same order to resume it, or choose another run "
            "id"
        )


def _ensure_samples_differ(question: ParsedQuestion | Invalid) -> None:
    if isinstance(question, ParsedQuestion) and question.params.get("temperature") == 0:
        raise UsageError("samples at temperature 0 are all the same text; give params={'temperature': 0.7}, say")
