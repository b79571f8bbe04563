"""One question to one record: the engine's answer, its refusal, or why there was neither."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass

from gpu_worker.engines.engine import Completion, Engine, Refusal
from wire.clock import ServerClock
from wire.codec import sendable, validation_error
from wire.errors import EngineDeadError, EngineUnusableError
from wire.failures import error_of
from wire.messages import Answer, Failure, Question

log = logging.getLogger(__name__)


CANCELLED = Refusal("cancelled", "its run was cancelled")
WITHDRAWN = Refusal("cancelled", "who asked it withdrew it")
COUNTS_DETAILS_SINCE = 2
"""Wire version whose producers know cached and reasoning tokens."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a question is tried.

    Attributes:
        timeout_s: Longest that it may be in the engine, all tries together; not while the engine itself waits.
        tries: Most tries by one worker, if the failures may pass.
        first_pause_s, longest_pause_s: Between tries; doubled each time.
    """

    timeout_s: float
    tries: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 10.0


async def answer(
    question: Question, engine: Engine, clock: ServerClock, patience: RetryPolicy, *, worker: str, attempts: int
) -> Answer | Failure:
    """Have one question answered.

    A failure of this question alone is a value. Cancelling takes the question out of the engine.

    Raises:
        EngineDeadError: The engine died; nothing is known about the question.
        EngineUnusableError: The engine can answer nothing until somebody does something.
    """
    made = record(
        question,
        await _outcome(question, engine, clock, patience),
        engine.model,
        clock,
        worker=worker,
        attempts=attempts,
    )
    # A record that its producer cannot read would be waited for without end.
    if (reason := validation_error(made)) is not None:
        refusal = Refusal("internal_error", f"the engine's answer cannot be sent: {reason}")
        made = record(question, refusal, engine.model, clock, worker=worker, attempts=attempts)
    return made


def record(
    question: Question, outcome: Completion | Refusal, model: str, clock: ServerClock, *, worker: str, attempts: int
) -> Answer | Failure:
    """What came of a question, as its producer will see it."""
    latency_s = round(max(0.0, clock.now() - question.submitted_at), 6)
    if isinstance(outcome, Completion):
        return Answer(
            run=question.run,
            epoch=question.epoch,
            index=question.index,
            request_id=question.request_id,
            worker=worker,
            attempts=attempts,
            latency_s=latency_s,
            metadata=question.metadata,
            text=outcome.texts[0],
            texts=outcome.texts if len(outcome.texts) > 1 else None,
            finish_reason=outcome.finish_reason,
            usage=outcome.usage if question.v >= COUNTS_DETAILS_SINCE else outcome.usage.plain(),
            model=model,
            params=outcome.params,
            details=outcome.details,
            v=question.v,
        )
    return Failure(
        run=question.run,
        epoch=question.epoch,
        index=question.index,
        request_id=question.request_id,
        worker=worker,
        attempts=attempts,
        latency_s=latency_s,
        metadata=question.metadata,
        error=error_of(outcome.kind, sendable(outcome.message)),
        v=question.v,
    )


async def _outcome(
    question: Question, engine: Engine, clock: ServerClock, patience: RetryPolicy
) -> Completion | Refusal:
    left_s = math.inf if question.deadline is None else question.deadline - clock.now()
    if left_s <= 0:
        return Refusal("expired", "its deadline passed before a worker could start it")
    while left_s > patience.timeout_s:
        try:
            async with asyncio.timeout(patience.timeout_s):
                return await _tried(question, engine, patience)
        except TimeoutError:
            if engine.state.kind == "ready":
                return Refusal("timed_out", f"no answer within limits.question_timeout_s = {patience.timeout_s:g} s")
            # It waited for the engine: that is no fault of the question, whose time begins anew.
            left_s = math.inf if question.deadline is None else question.deadline - clock.now()
    try:
        async with asyncio.timeout(left_s):
            return await _tried(question, engine, patience)
    except TimeoutError:
        # Nobody wants the answer now, whether it waits in the engine's line or half of it is written.
        return Refusal("expired", "its deadline passed before its answer was complete")


async def _tried(question: Question, engine: Engine, patience: RetryPolicy) -> Completion | Refusal:
    """Ask; ask again, after a pause, while the engine fails in a way that may pass."""
    pause_s = patience.first_pause_s
    for left in reversed(range(patience.tries)):
        outcome = await _once(question, engine)
        if isinstance(outcome, Completion) or not outcome.retryable or outcome.is_final or not left:
            break
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, patience.longest_pause_s)
    return outcome


async def _once(question: Question, engine: Engine) -> Completion | Refusal:
    try:
        outcome = await engine.answer(question)
    except (EngineDeadError, EngineUnusableError):
        raise
    except Exception as error:
        # A bug of ours or of the engine's: this question pays for it, not its neighbours.
        ids = {"run": question.run, "request": question.request_id}
        log.exception("the engine failed on question %s of run %s", question.request_id, question.run, extra=ids)
        return Refusal("internal_error", f"{type(error).__name__}: {str(error)[:500]}")
    if isinstance(outcome, Completion) and not outcome.texts:
        return Refusal("internal_error", "the engine returned no text, not even an empty one")
    return outcome
