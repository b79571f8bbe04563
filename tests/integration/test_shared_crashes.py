"""Several workers at one server that a question takes down."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import Outcome, Refusal
from gpu_worker.engines.openai import crash_ledger
from gpu_worker.engines.openai.crash_ledger import CrashLedger, Seen
from gpu_worker.engines.openai.crashes import CRASHES_ALONE, Company, CrashCount, Crashes
from gpu_worker.engines.openai.engine import OpenAIEngine
from tests.builders import a_question
from tests.eventually import until
from tests.unit.gpu_worker.test_crashing_server import KILLER, Fragile
from tests.unit.gpu_worker.test_openai_engine import completion, options, refusal
from tests.unit.scripted_server import DROPPED, MODEL, Asked, Reply, ScriptedServer, a_text
from wire.address import RedisAddress
from wire.errors import EngineUnusableError

WORKERS = 3
MOST_BEFORE = 4
"""Crashes by one question before it is asked alone."""
SLOW_S = 0.3
"""Long enough that a question is still there when one that is asked at the same time takes the server down."""


class SlowAndFragile(Fragile):
    """Takes its time for all that does not take it down."""

    async def _answer(self, asked: Asked) -> Reply:
        await asyncio.sleep(0 if KILLER in asked.body["prompt"] else SLOW_S)
        return await super()._answer(asked)


def a_ledger(url: str) -> CrashLedger:
    """One worker's."""
    return CrashLedger(RedisAddress(url), MODEL, "the server")


@contextlib.asynccontextmanager
async def workers(server: ScriptedServer, url: str, pulse_s: float = 0.1) -> AsyncIterator[list[OpenAIEngine]]:
    """Their engines, at one server."""
    engines = [OpenAIEngine(options(server, pulse_s=pulse_s), a_ledger(url)) for _ in range(WORKERS)]
    for engine in engines:
        await engine.start()
    yield engines
    for engine in engines:
        await engine.stop()


@pytest.mark.parametrize("restart", ["after a while", "at once"])
async def test_of_the_questions_of_several_workers_only_that_which_crashes_the_server_fails(
    redis_server: EmbeddedServer, restart: str
) -> None:
    """The others, each alone at its own worker, are lost with it, and not taken for the reason."""
    async with SlowAndFragile() as server, workers(server, redis_server.url) as engines:
        if restart == "after a while":
            # Once the worker with the question has seen it: it would not take for a crash what it does not see.
            server.is_time = lambda: engines[0].state.kind == "waiting"
        questions = [a_question(f"q{number}", index=number, prompt=f"q{number}") for number in range(WORKERS)]
        questions[0] = a_question("q0", prompt=KILLER)
        pairs = zip(engines, questions, strict=True)
        killed, *others = await asyncio.gather(*(engine.answer(question) for engine, question in pairs))

    assert refusal(killed).kind == "server_error"
    assert {completion(outcome).texts[0] for outcome in others} == {"42"}
    # Once or twice with the others.
    assert server.crashes <= 2 + CRASHES_ALONE


async def test_what_is_asked_alone_is_not_taken_for_one_crash_after_another_of_others_making(
    redis_server: EmbeddedServer,
) -> None:
    """Two workers have one question after the other that takes the server down, which is back at once each time."""
    async with SlowAndFragile() as server, workers(server, redis_server.url) as engines:
        answered: list[Outcome] = []

        async def ask_on() -> None:
            while True:
                answered.append(await engines[0].answer(a_question(index=100 + len(answered), prompt="innocent")))

        async def ask_killers(engine: OpenAIEngine, first: int) -> list[Outcome]:
            return [await engine.answer(a_question(index=first + number, prompt=KILLER)) for number in range(2)]

        asking_on = asyncio.create_task(ask_on())
        killed = await asyncio.gather(ask_killers(engines[1], 1), ask_killers(engines[2], 3))
        await cancel_and_wait([asking_on])

    assert {completion(outcome).texts[0] for outcome in answered} == {"42"}
    assert {refusal(outcome).kind for outcomes in killed for outcome in outcomes} == {"server_error"}
    assert server.crashes <= 4 * (MOST_BEFORE + CRASHES_ALONE)


async def test_nothing_else_is_at_the_server_before_a_question_is_convicted(redis_server: EmbeddedServer) -> None:
    """It is lost only where others are, and those of other workers are held back at last."""
    delays = itertools.cycle([0.2, 0.25, 0.3, 0.35])

    async def script(asked: Asked) -> Reply:
        if asked.body["prompt"] == "accused" and server.at_once > 1:
            return DROPPED
        await asyncio.sleep(next(delays))
        return a_text()

    async with ScriptedServer(script) as server, workers(server, redis_server.url, pulse_s=0.5) as engines:

        async def ask_on(engine: OpenAIEngine, index: int) -> None:
            while True:
                completion(await engine.answer(a_question(index=index)))
                index += 8 * WORKERS

        others = [asyncio.create_task(ask_on(engine, number)) for number, engine in enumerate(8 * engines, 1)]
        await until(lambda: server.at_once > WORKERS)
        completion(await engines[0].answer(a_question(prompt="accused")))
        await cancel_and_wait(others)


async def test_a_server_that_goes_away_whatever_it_is_asked_convicts_nobody(redis_server: EmbeddedServer) -> None:
    """It is of no use to any worker, and whoever looks after it hears so; the questions wait for its repair."""
    async with SlowAndFragile() as server, workers(server, redis_server.url) as engines:
        asking = [
            asyncio.create_task(engine.answer(a_question(index=number, prompt=KILLER)))
            for number, engine in enumerate(engines)
        ]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
        with pytest.raises(EngineUnusableError, match="goes away whatever it is asked"):
            next(iter(done)).result()
        for one in waiting:
            one.cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        ledger = a_ledger(redis_server.url)
        assert await ledger.read() == Seen()
        await ledger.close()

    assert not any(isinstance(outcome, Refusal) for outcome in ended)
    assert server.crashes <= len(asking) * (MOST_BEFORE + CRASHES_ALONE)


async def test_crashes_count_at_whichever_worker_they_happen(redis_server: EmbeddedServer) -> None:
    """A server that stays away has its questions returned to the queue, and another worker asks them next."""
    killer, alone = a_question(prompt=KILLER), Company(1, is_certain=True)
    ledgers = [a_ledger(redis_server.url) for _ in range(WORKERS)]
    first, second, third = (Crashes(64, ledger) for ledger in ledgers)

    await first.add(killer, Company(64, is_certain=False), alone=True)
    await second.refresh(0)
    assert second.most_open(killer) == 1
    for crashes in (first, second):
        await crashes.add(killer, alone, alone=True)

    assert await third.add(killer, alone, alone=True) == CrashCount(0, CRASHES_ALONE)
    await third.refresh(0)
    assert third.most_open(killer) == 1
    await third.forget(killer)
    assert await ledgers[0].read() == Seen()
    for ledger in ledgers:
        await ledger.close()


async def test_one_question_at_a_time_is_asked_alone(redis_server: EmbeddedServer) -> None:
    """Whichever worker asks it."""
    ledgers = [a_ledger(redis_server.url) for _ in range(WORKERS)]
    inside = most = 0

    async def ask(ledger: CrashLedger) -> None:
        nonlocal inside, most
        async with ledger.turn() as is_certain:
            assert is_certain
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(ask(ledger) for ledger in ledgers))
    assert most == 1
    for ledger in ledgers:
        await ledger.close()


async def test_a_turn_that_does_not_come_is_not_waited_for_without_end(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked without it may have company, and whoever has the turn keeps it."""
    monkeypatch.setattr(crash_ledger, "LONGEST_WAIT_S", 0.5)
    ledgers = [a_ledger(redis_server.url) for _ in range(2)]
    async with ledgers[0].turn() as has, ledgers[1].turn() as lacks:
        assert (has, lacks) == (True, False)
    async with ledgers[1].turn() as has:
        assert has
    for ledger in ledgers:
        await ledger.close()
