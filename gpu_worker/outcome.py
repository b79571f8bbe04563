"""One question to one record: the engine's answer, its refusal, or why there was neither."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpu_worker.cancellation import TimeLimit
from gpu_worker.engines.engine import Completion, Engine, Outcome, Refusal, Vectors
from wire.clock import ServerClock
from wire.codec import encode_readable, encode_record, sendable
from wire.errors import EngineDeadError, EngineUnusableError, MalformedMessageError
from wire.failures import error_of
from wire.messages import FIELDS_SINCE, Answer, Failure, JsonObject, Question

log = logging.getLogger(__name__)


INSTEAD_OF_TEXT = frozenset({"refusal", "function_call", "audio", "logprobs", "prompt_logprobs"})
"""Details that are an answer without a text, or what was asked for in place of one."""
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
) -> tuple[Answer | Failure, bytes]:
    """Have one question answered; the record, and how it is encoded.

    A failure of this question alone is a value. Cancelling takes the question out of the engine.

    Raises:
        EngineDeadError: The engine died; nothing is known about the question.
        EngineUnusableError: The engine can answer nothing until somebody does something.
    """
    outcome = await _outcome(question, engine, clock, patience)
    made = record(question, outcome, engine.model, clock, worker=worker, attempts=attempts)
    try:
        # A record that its producer cannot read would be waited for without end.
        return made, encode_readable(made)
    except MalformedMessageError as error:
        refusal = Refusal("internal_error", f"the engine's answer cannot be sent: {error}")
    made = record(question, refusal, engine.model, clock, worker=worker, attempts=attempts)
    return made, encode_record(made)


def record(
    question: Question, outcome: Outcome, model: str, clock: ServerClock, *, worker: str, attempts: int
) -> Answer | Failure:
    """The outcome of a question, as its producer will see it."""
    latency_s = round(max(0.0, clock.now() - question.submitted_at), 6)
    common: dict[str, Any] = {
        "run": question.run,
        "epoch": question.epoch,
        "index": question.index,
        "request_id": question.request_id,
        "worker": worker,
        "attempts": attempts,
        "latency_s": latency_s,
        "metadata": question.metadata,
        "v": question.v,
    }
    if isinstance(outcome, Refusal):
        return Failure(error=error_of(outcome.kind, sendable(outcome.message), outcome.evidence), **common)
    if isinstance(outcome, Vectors):
        return Answer(
            text="",
            task=question.task,
            vectors=outcome.vectors,
            finish_reason="stop",
            usage=outcome.usage,
            model=model,
            params=outcome.params,
            details=outcome.details,
            **common,
        )
    reasoning = outcome.reasoning[0] if outcome.reasoning else None
    tool_calls = outcome.tool_calls[0] if outcome.tool_calls else None
    has_fields = question.v >= FIELDS_SINCE
    return Answer(
        text=outcome.texts[0],
        texts=outcome.texts if len(outcome.texts) > 1 else None,
        reasoning=reasoning if has_fields else None,
        tool_calls=tool_calls if has_fields else None,
        finish_reason=outcome.finish_reason,
        usage=outcome.usage if question.v >= COUNTS_DETAILS_SINCE else outcome.usage.plain(),
        model=model,
        params=outcome.params,
        details=_details(outcome, of_all_texts=not has_fields or len(outcome.texts) > 1),
        **common,
    )


def _details(outcome: Completion, *, of_all_texts: bool) -> JsonObject | None:
    """With the reasoning and the tool calls of each text, where the record has no field that holds them all."""
    if not of_all_texts:
        return outcome.details
    lists: dict[str, Sequence[Any]] = {"reasoning": outcome.reasoning, "tool_calls": outcome.tool_calls}
    more: JsonObject = {name: list(values) for name, values in lists.items() if any(values)}
    return {**(outcome.details or {}), **more} or None


def without_answer(completion: Completion) -> Refusal | None:
    """Why a completion holds no answer: an empty text must not pass for one.

    None if there is a text, or what stands in place of one.
    """
    if not completion.texts:
        return Refusal("internal_error", "the engine returned no text, not even an empty one")
    if completion.texts[0]:
        return None
    details = completion.details or {}
    if any(completion.texts) or any(completion.tool_calls) or not INSTEAD_OF_TEXT.isdisjoint(details):
        return None
    asked = completion.params.get("max_tokens")
    evidence: JsonObject = {
        "finish_reason": completion.finish_reason,
        "completion_tokens": completion.usage.completion_tokens,
    }
    end = f"finish_reason {completion.finish_reason}, {completion.usage.completion_tokens} tokens"
    more = f"; raise max_tokens (now {asked})" if completion.finish_reason == "length" and asked is not None else ""
    thoughts = next(filter(None, completion.reasoning), None)
    if thoughts:
        return Refusal(
            "only_reasoning",
            f"the model thought and gave no answer ({end}){more}",
            evidence={**evidence, "reasoning": thoughts},
        )
    return Refusal("empty_answer", f"the model gave an empty answer ({end}){more}", evidence=evidence)


async def _outcome(question: Question, engine: Engine, clock: ServerClock, patience: RetryPolicy) -> Outcome:
    left_s = math.inf if question.deadline is None else question.deadline - clock.now()
    if left_s <= 0:
        return Refusal("expired", "its deadline passed before a worker could start it")
    while left_s > patience.timeout_s:
        try:
            with TimeLimit(patience.timeout_s):
                return await _tried(question, engine, patience)
        except TimeoutError:
            if engine.state.kind == "ready":
                return Refusal("timed_out", f"no answer within limits.question_timeout_s = {patience.timeout_s:g} s")
            # It waited for the engine: that is no fault of the question, whose time starts again.
            left_s = math.inf if question.deadline is None else question.deadline - clock.now()
    try:
        with TimeLimit(left_s):
            return await _tried(question, engine, patience)
    except TimeoutError:
        # Nobody wants the answer now, whether it waits in the engine's line or half of it is written.
        return Refusal("expired", "its deadline passed before its answer was complete")


async def _tried(question: Question, engine: Engine, patience: RetryPolicy) -> Outcome:
    """Ask; ask again, after a pause, while the engine fails in a way that may pass."""
    pause_s = patience.first_pause_s
    for left in reversed(range(patience.tries)):
        try:
            outcome = await engine.answer(question)
        except (EngineDeadError, EngineUnusableError):
            raise
        except Exception as error:
            # A bug of ours or of the engine's: this question pays for it, not its neighbours.
            ids = {"run": question.run, "request": question.request_id}
            log.exception("the engine failed on question %s of run %s", question.request_id, question.run, extra=ids)
            return Refusal("internal_error", f"{type(error).__name__}: {str(error)[:500]}")
        if isinstance(outcome, Completion):
            outcome = without_answer(outcome) or outcome
        if not isinstance(outcome, Refusal) or not outcome.retryable or outcome.is_final or not left:
            break
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, patience.longest_pause_s)
    return outcome
