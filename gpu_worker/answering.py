"""One question to one record: the engine's answer, its refusal, or why there was neither."""

from __future__ import annotations

import asyncio
import logging

from gpu_worker.engines.engine import Completion, Engine, Refusal
from wire.clock import ServerClock
from wire.errors import EngineDeadError
from wire.messages import Answer, ErrorDetail, Failure, Question

log = logging.getLogger(__name__)


CANCELLED = Refusal("cancelled", "its run was cancelled")


async def answer(question: Question, engine: Engine, clock: ServerClock, *, worker: str, attempts: int, timeout_s: float) -> Answer | Failure:
    """Have one question answered.

    A failure of this question alone is a value. Cancelling takes the question out of the engine.

    Raises:
        EngineDeadError: The engine died; nothing is known about the question.
    """
    return record(question, await _outcome(question, engine, clock, timeout_s), engine.model, clock, worker=worker, attempts=attempts)


def record(question: Question, outcome: Completion | Refusal, model: str, clock: ServerClock, *, worker: str, attempts: int) -> Answer | Failure:
    """What came of a question, as its producer will see it."""
    latency_s = round(max(0.0, clock.now() - question.submitted_at), 6)
    if isinstance(outcome, Completion):
        return Answer(
            run=question.run,
            index=question.index,
            request_id=question.request_id,
            worker=worker,
            attempts=attempts,
            latency_s=latency_s,
            metadata=question.metadata,
            text=outcome.texts[0],
            texts=outcome.texts if len(outcome.texts) > 1 else None,
            finish_reason=outcome.finish_reason,
            usage=outcome.usage,
            model=model,
            params=outcome.params,
            details=outcome.details,
        )
    return Failure(
        run=question.run,
        index=question.index,
        request_id=question.request_id,
        worker=worker,
        attempts=attempts,
        latency_s=latency_s,
        metadata=question.metadata,
        error=ErrorDetail(kind=outcome.kind, message=outcome.message, retryable=outcome.retryable),
    )


async def _outcome(question: Question, engine: Engine, clock: ServerClock, timeout_s: float) -> Completion | Refusal:
    if question.deadline is not None and clock.now() >= question.deadline:
        return Refusal("expired", "its deadline passed before a worker could start it")
    try:
        async with asyncio.timeout(timeout_s):
            return await engine.answer(question)
    except TimeoutError:
        return Refusal("timed_out", f"no answer within limits.question_timeout_s = {timeout_s:g} s", retryable=True)
    except EngineDeadError:
        raise
    except Exception as error:
        # A bug of ours or of the engine's: this question pays for it, not its neighbours.
        log.exception("the engine failed on question %s of run %s", question.request_id, question.run)
        return Refusal("internal_error", f"{type(error).__name__}: {str(error)[:500]}", retryable=True)
