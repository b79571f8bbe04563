"""The stub has the shape of a real engine: continuous batching on a step clock."""

from __future__ import annotations

import asyncio

import pytest

from gpu_worker.engines.engine import Completion, Refusal
from gpu_worker.engines.stub import StubEngine, StubOptions
from tests.builders import a_question
from tests.unit.stepped_time import run_stepped
from wire.errors import EngineDeadError


async def answers(engine: StubEngine, count: int) -> list[Completion]:
    """Ask for `count` answers at once."""
    outcomes = await asyncio.gather(*(engine.answer(a_question(f"q{number}")) for number in range(count)))
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Completion)]


async def test_the_text_depends_on_the_question_alone() -> None:
    """Asked alone or among others, costless or on a clock, an answer is the same; answers differ in length."""
    costless, clocked = StubEngine(StubOptions()), StubEngine(StubOptions(step_s=0.0001))
    await clocked.start()

    alone = [(await answers(costless, number + 1))[number].texts for number in range(5)]
    together = [completion.texts for completion in await answers(clocked, 20)]
    await clocked.stop()

    assert together[:5] == alone
    assert len({len(text[0].split()) for text in together}) > 5


@pytest.mark.parametrize(("bound", "steps"), [(4, 10), (2, 20)])
def test_sequences_share_steps_up_to_the_bound(bound: int, steps: int) -> None:
    """Four answers of ten tokens take ten steps side by side, and twenty if only two may run at once."""

    async def took() -> float:
        engine = StubEngine(StubOptions(max_num_seqs=bound, step_s=0.01, min_tokens=10, max_tokens=10))
        await engine.start()
        began = asyncio.get_running_loop().time()
        await answers(engine, 4)
        await engine.stop()
        return asyncio.get_running_loop().time() - began

    assert run_stepped(took()) == pytest.approx(0.01 * steps)


async def test_a_late_question_joins_those_that_run() -> None:
    """A long answer does not keep a short one out: that is what makes batching continuous."""
    engine = StubEngine(StubOptions(step_s=0.002, min_tokens=200, max_tokens=200))
    await engine.start()
    long = asyncio.create_task(engine.answer(a_question("long")))
    while not engine.progress():
        await asyncio.sleep(0.001)

    await engine.answer(a_question("short", params={"max_tokens": 3}))

    assert not long.done()
    long.cancel()
    await engine.stop()


async def test_max_tokens_ends_an_answer_early_and_says_so() -> None:
    """The question's own parameters are used, and recorded with the defaults."""
    engine = StubEngine(StubOptions(min_tokens=50, sampling_defaults={"temperature": 0.0, "max_tokens": 1024}))

    outcome = await engine.answer(a_question(params={"max_tokens": 7}))

    assert isinstance(outcome, Completion)
    assert (outcome.finish_reason, outcome.usage.completion_tokens) == ("length", 7)
    assert outcome.params == {"temperature": 0.0, "max_tokens": 7}


async def test_it_refuses_when_told_to() -> None:
    """And only what it was told to refuse."""
    engine = StubEngine(StubOptions(refuse_on="bad"))

    assert isinstance(await engine.answer(a_question("bad")), Refusal)
    assert isinstance(await engine.answer(a_question("good")), Completion)


async def test_a_cancelled_question_leaves_the_engine() -> None:
    """Its place is free for the next one."""
    engine = StubEngine(StubOptions(max_num_seqs=1, step_s=0.001, min_tokens=5, max_tokens=5, hang_on="stuck"))
    await engine.start()
    stuck = asyncio.create_task(engine.answer(a_question("stuck")))
    following = asyncio.create_task(engine.answer(a_question("next")))
    await asyncio.sleep(0.02)
    assert not following.done()

    stuck.cancel()

    assert isinstance(await following, Completion)
    await engine.stop()


async def test_a_hanging_question_makes_no_progress() -> None:
    """Progress is what keeps leases: tokens count, steps do not."""
    engine = StubEngine(StubOptions(step_s=0.001, hang_on="stuck"))
    await engine.start()
    stuck = asyncio.create_task(engine.answer(a_question("stuck")))
    await asyncio.sleep(0.05)

    assert engine.progress() == 0
    stuck.cancel()
    await engine.stop()


async def test_a_stopped_engine_is_dead() -> None:
    """It answers nothing and says why."""
    engine = StubEngine(StubOptions())
    await engine.stop()

    with pytest.raises(EngineDeadError):
        await engine.answer(a_question())
    with pytest.raises(EngineDeadError):
        engine.check()
