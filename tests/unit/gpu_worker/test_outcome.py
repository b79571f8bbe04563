"""One question to one record, whatever the engine does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from gpu_worker.engines.engine import Completion, Outcome, Refusal
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.heartbeat import Progress
from gpu_worker.outcome import RetryPolicy, answer
from producer.answers.answer_line import answer_line
from tests.builders import a_question
from tests.processes import PATIENCE_S
from wire.clock import ServerClock
from wire.codec import decode_record, encode_record
from wire.errors import EngineDeadError
from wire.messages import WIRE_VERSION, Answer, Failure, Question, Usage


class FailingEngine(StubEngine):
    """An engine that raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__(StubOptions())
        self._error = error

    async def answer(self, question: Question) -> Outcome:
        del question
        raise self._error


async def ask(question: Question, engine: StubEngine, timeout_s: float = 10.0) -> Answer | Failure:
    """Have one question answered by a worker's code."""
    policy = RetryPolicy(timeout_s, tries=3, first_pause_s=0.0)
    record, encoded = await answer(question, engine, ServerClock(), policy, worker="w", attempts=1)
    assert decode_record(encoded) == record
    return record


async def test_an_answer_carries_what_the_producer_needs() -> None:
    """Identity, text, reason, usage, parameters, worker and the producer's own metadata."""
    record = await ask(a_question("q7", index=7, metadata={"page": 3}), StubEngine(StubOptions()))

    assert isinstance(record, Answer)
    assert (record.run, record.index, record.request_id, record.worker) == ("run-1", 7, "q7", "w")
    assert record.metadata == {"page": 3}
    assert record.text
    assert record.usage.completion_tokens > 0


class CountingEngine(StubEngine):
    """An engine that counts cached and reasoning tokens, and finds half a character in its own refusal."""

    async def answer(self, question: Question) -> Outcome:
        if question.request_id == "bad":
            return Refusal("bad_parameter", "half \ud83d")
        usage = Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1, reasoning_tokens=2)
        return Completion(["42"], "stop", usage, {})


@pytest.mark.parametrize(("version", "counts"), [(1, (None, None)), (2, (1, 2))])
async def test_a_producer_gets_the_counts_that_it_knows(
    version: int, counts: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the first wire version could not read a record with more in it."""
    monkeypatch.setattr("wire.codec.WIRE_VERSION", 2)
    record = await ask(a_question("q1", v=version), CountingEngine(StubOptions()))

    assert isinstance(record, Answer)
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (3, 2)
    assert (record.usage.cached_tokens, record.usage.reasoning_tokens) == counts


async def test_half_a_character_in_a_reason_spoils_nothing() -> None:
    """The failure keeps its kind, and its words but for that."""
    record = await ask(a_question("bad"), CountingEngine(StubOptions()))

    assert isinstance(record, Failure)
    assert (record.error.kind, record.error.message) == ("bad_parameter", "half \N{REPLACEMENT CHARACTER}")


class ScriptedEngine(StubEngine):
    """An engine that says what it is told to."""

    def __init__(self, completion: Completion) -> None:
        super().__init__(StubOptions())
        self._completion = completion

    async def answer(self, question: Question) -> Outcome:
        del question
        return self._completion


SAID = Completion([""], "length", Usage(prompt_tokens=1, completion_tokens=9), {"max_tokens": 9})


@pytest.mark.parametrize(
    ("completion", "kind"),
    [
        (SAID, "empty_answer"),
        (replace(SAID, finish_reason="stop"), "empty_answer"),
        (replace(SAID, reasoning=["hm"]), "only_reasoning"),
        (replace(SAID, tool_calls=[[{"id": "c"}]]), None),
        (replace(SAID, details={"refusal": ["no"]}), None),
        (replace(SAID, details={"logprobs": [[]]}), None),
        (replace(SAID, texts=["", "a"]), None),
    ],
)
async def test_an_empty_answer_is_none(completion: Completion, kind: str | None) -> None:
    """A failure says that there is nothing, and keeps the reasoning; what stands in place of a text is an answer."""
    record = await ask(a_question("q1"), ScriptedEngine(completion))

    assert (record.error.kind if isinstance(record, Failure) else None) == kind
    if isinstance(record, Failure):
        assert record.error.evidence is not None
        assert record.error.evidence.get("reasoning") == next(iter(completion.reasoning), None)
        assert ("raise max_tokens (now 9)" in record.error.message) == (completion.finish_reason == "length")


@pytest.mark.parametrize("version", [2, 3])
async def test_reasoning_and_calls_are_where_their_producer_looks(version: int) -> None:
    """Beside the text; in the details for producers of before, and where there are several texts."""
    calls: Any = [{"id": "c"}]
    said = replace(SAID, texts=["4"], reasoning=["hm"], tool_calls=[calls])
    one = await ask(a_question("q1", v=version), ScriptedEngine(said))
    two = await ask(a_question("q1"), ScriptedEngine(replace(said, texts=["4", "5"], reasoning=["hm", None])))

    assert isinstance(one, Answer)
    assert isinstance(two, Answer)
    if version == WIRE_VERSION:
        assert (one.reasoning, one.tool_calls, one.details) == ("hm", calls, None)
    else:
        assert (one.reasoning, one.tool_calls) == (None, None)
        assert one.details == {"reasoning": ["hm"], "tool_calls": [calls]}
    assert (two.reasoning, (two.details or {})["reasoning"]) == ("hm", ["hm", None])
    line = orjson.loads(answer_line(one))
    assert (line["text"], line["reasoning"], line["tool_calls"]) == ("4", "hm", calls)


class SilentEngine(StubEngine):
    """An engine that completes a question without any text."""

    async def answer(self, question: Question) -> Outcome:
        del question
        return Completion([], "stop", Usage(prompt_tokens=1, completion_tokens=0), {})


async def test_no_text_at_all_is_a_failure_record() -> None:
    """A batch with a question that gets no record would never end."""
    record = await ask(a_question("q1"), SilentEngine(StubOptions()))

    assert isinstance(record, Failure)
    assert record.error.kind == "internal_error"


async def test_a_refusal_is_a_failure_record() -> None:
    """Of its own kind, never a text."""
    record = await ask(a_question("bad"), StubEngine(StubOptions(refuse_on="bad")))

    assert isinstance(record, Failure)
    assert record.error.kind == "refused"


async def test_an_expired_question_is_never_generated() -> None:
    """Nobody wants the answer any more."""
    engine = StubEngine(StubOptions())

    record = await ask(a_question(deadline=1.0), engine)

    assert isinstance(record, Failure)
    assert record.error.kind == "expired"
    assert engine.progress() == 0


async def test_a_question_leaves_the_engine_at_its_deadline() -> None:
    """Also while it waits in the engine's own line behind others: what nobody wants is not generated."""
    engine = StubEngine(StubOptions(max_num_seqs=1, step_s=0.005, min_tokens=10_000, max_tokens=10_000))
    await engine.start()
    first = asyncio.create_task(ask(a_question("first"), engine))
    await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE_S):
        record = await ask(a_question("second", deadline=time.time() + 0.05), engine, timeout_s=600.0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert isinstance(record, Failure)
    assert (record.error.kind, record.error.retryable) == ("expired", False)
    assert not engine._queued
    await engine.stop()


async def test_a_question_without_end_times_out() -> None:
    """And could be tried again."""
    record = await ask(a_question("stuck"), StubEngine(StubOptions(hang_on="stuck")), timeout_s=0.05)

    assert isinstance(record, Failure)
    assert (record.error.kind, record.error.retryable) == ("timed_out", True)


async def test_a_bug_in_the_engine_costs_one_question_only() -> None:
    """It becomes a failure that names the error."""
    record = await ask(a_question(), FailingEngine(ZeroDivisionError("division by zero")))

    assert isinstance(record, Failure)
    assert record.error.kind == "internal_error"
    assert "ZeroDivisionError" in record.error.message


class FickleEngine(StubEngine):
    """An engine that fails a few times, in a way that passes."""

    def __init__(self, failures: int) -> None:
        super().__init__(StubOptions())
        self.left = failures

    async def answer(self, question: Question) -> Outcome:
        if self.left:
            self.left -= 1
            return Refusal("server_error", "try again")
        return await super().answer(question)


@pytest.mark.parametrize(
    "completion",
    [
        Completion(["half \ud800"], "stop", Usage(prompt_tokens=1, completion_tokens=1), {}),
        Completion(["text"], "stop", Usage(prompt_tokens=-1, completion_tokens=1), {}),
        Completion(["text"], "stop", Usage(prompt_tokens=1, completion_tokens=1), {}, details={"logprobs": b"bytes"}),  # type: ignore[dict-item]
        Completion(["text"], "stop", Usage(prompt_tokens=1, completion_tokens=1), {"seed": 2**70}),
    ],
)
async def test_what_no_message_can_hold_is_a_failure(completion: Completion) -> None:
    """The producer could not read it, and would wait for ever."""

    class OddEngine(StubEngine):
        async def answer(self, question: Question) -> Completion:
            del question
            return completion

    record = await ask(a_question(), OddEngine(StubOptions()))

    assert isinstance(record, Failure)
    assert record.error.kind == "internal_error"
    assert decode_record(encode_record(record)) == record


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    """Up to the cap; then it is a failure that says it could be tried again."""
    recovered = await ask(a_question(), FickleEngine(2))
    failed = await ask(a_question(), FickleEngine(3))

    assert isinstance(recovered, Answer)
    assert isinstance(failed, Failure)
    assert (failed.error.kind, failed.error.retryable) == ("server_error", True)


async def test_a_dead_engine_is_no_record_at_all() -> None:
    """Another worker must answer."""
    with pytest.raises(EngineDeadError):
        await ask(a_question(), FailingEngine(EngineDeadError("gone")))


@dataclass
class Clock:
    """A clock that tests move by hand."""

    now: float = field(default=0.0)

    def __call__(self) -> float:
        return self.now


async def test_a_stalled_engine_is_found_out() -> None:
    """Work in flight and no progress for stall_s seconds is as bad as dead."""
    clock = Clock()
    progress = Progress(StubEngine(StubOptions()), stall_s=10.0, now=clock)
    for clock.now in (1.0, 4.0, 8.0):
        progress.check(busy=True)

    clock.now = 10.5
    with pytest.raises(EngineDeadError, match="no progress"):
        progress.check(busy=True)


async def test_half_an_hour_of_generation_with_progress_is_no_stall() -> None:
    """However long one answer takes, each token counts."""
    clock, engine = Clock(), StubEngine(StubOptions())
    progress = Progress(engine, stall_s=10.0, now=clock)
    for second in range(1800):
        clock.now = float(second)
        if second % 5 == 0:
            # A costless answer is one step of progress.
            await engine.answer(a_question())
        progress.check(busy=True)


async def test_an_idle_engine_does_not_stall() -> None:
    """Without work there is nothing to make progress with."""
    clock = Clock()
    progress = Progress(StubEngine(StubOptions()), stall_s=10.0, now=clock)
    for clock.now in (5.0, 100.0, 1000.0):
        progress.check(busy=False)


async def test_a_process_that_was_stopped_for_an_hour_has_not_seen_an_hour_of_stall() -> None:
    """SIGSTOP and SIGCONT: the engine stood still with us."""
    clock = Clock()
    progress = Progress(StubEngine(StubOptions()), stall_s=10.0, now=clock)
    clock.now = 3600.0

    progress.check(busy=True)


async def test_cancelling_takes_the_question_out_of_the_engine() -> None:
    """A worker that lost its lease must not keep computing."""
    engine = StubEngine(StubOptions(hang_on="stuck"))
    task = asyncio.create_task(ask(a_question("stuck"), engine))
    await asyncio.sleep(0)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
