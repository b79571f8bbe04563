"""How often and how soon a worker tries a question again whose failure may pass. Time is stepped: pauses are exact."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gpu_worker.engines.engine import Outcome, Refusal
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.options import WorkerOptions
from gpu_worker.outcome import RetryPolicy, answer
from tests.builders import a_question
from tests.unit.stepped_time import run_stepped
from wire.clock import ServerClock
from wire.messages import Answer, Failure, Question


class FailingEngine(StubEngine):
    """Fails, and remembers when it was asked, in seconds."""

    def __init__(self, failures: int, *, retryable: bool = True) -> None:
        super().__init__(StubOptions())
        self.asked_s: list[float] = []
        self._failures = failures
        self._retryable = retryable

    async def answer(self, question: Question) -> Outcome:
        self.asked_s.append(asyncio.get_running_loop().time())
        if len(self.asked_s) <= self._failures:
            return Refusal("engine_error" if self._retryable else "refused", "not now")
        return await super().answer(question)

    @property
    def pauses_s(self) -> list[float]:
        return [round(later - earlier, 3) for earlier, later in itertools.pairwise(self.asked_s)]


def ask(engine: FailingEngine, patience: RetryPolicy) -> Answer | Failure:
    """What a worker makes of one question."""
    record, _ = run_stepped(answer(a_question(), engine, ServerClock(), patience, worker="w", attempts=1))
    return record


def test_pauses_double_up_to_a_bound_and_tries_have_a_cap() -> None:
    """Ten tries are ten calls of the engine and nine pauses.

    Then the question fails, retryable, and is not asked an eleventh time.
    """
    engine = FailingEngine(failures=100)

    record = ask(engine, RetryPolicy(timeout_s=3600.0, tries=10))

    assert isinstance(record, Failure)
    assert (record.error.kind, record.error.retryable) == ("engine_error", True)
    assert engine.pauses_s == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]


def test_a_worker_tries_six_times_unless_told_otherwise() -> None:
    """At the defaults of `limits.max_attempts` and `limits.question_timeout_s`; a success ends it at once."""
    options = WorkerOptions()
    lasting, passing = FailingEngine(failures=100), FailingEngine(failures=2)
    patience = RetryPolicy(options.question_timeout_s, options.max_attempts)

    records = [ask(engine, patience) for engine in (lasting, passing)]

    assert [record.status for record in records] == ["failed", "answered"]
    assert [len(engine.asked_s) for engine in (lasting, passing)] == [6, 3]


def test_time_runs_out_in_the_middle_of_a_pause() -> None:
    """All tries together have the question's time limit, and no longer."""
    engine = FailingEngine(failures=100)

    record = ask(engine, RetryPolicy(timeout_s=5.0, tries=10))

    assert isinstance(record, Failure)
    assert (record.error.kind, record.error.retryable) == ("timed_out", True)
    assert engine.asked_s == pytest.approx([0.0, 0.5, 1.5, 3.5])


def test_what_every_worker_would_refuse_is_tried_once() -> None:
    """A refusal that cannot pass costs no pause."""
    engine = FailingEngine(failures=100, retryable=False)

    record = ask(engine, RetryPolicy(timeout_s=3600.0, tries=10))

    assert isinstance(record, Failure)
    assert engine.asked_s == [0.0]
