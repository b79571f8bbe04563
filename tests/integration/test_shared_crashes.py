"""Several workers at one server that a question takes down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.engines.openai import crash_ledger
from gpu_worker.engines.openai.crash_ledger import CrashLedger
from gpu_worker.engines.openai.crashes import CRASHES_ALONE, Company, CrashCount, Crashes
from gpu_worker.engines.openai.engine import OpenAIEngine
from tests.builders import a_question
from tests.unit.gpu_worker.test_crashing_server import KILLER, Fragile
from tests.unit.gpu_worker.test_openai_engine import completion, options, refusal
from tests.unit.scripted_server import MODEL, Asked, Reply
from wire.address import RedisAddress

WORKERS = 3
SLOW_S = 0.3
"""Long enough that a question is still there when one that is asked at the same time takes the server down."""


class SlowAndFragile(Fragile):
    """Takes its time for all that does not take it down."""

    async def _answer(self, asked: Asked) -> Reply:
        await asyncio.sleep(0 if KILLER in asked.body["prompt"] else SLOW_S)
        return await super()._answer(asked)


@contextlib.asynccontextmanager
async def workers(server: Fragile, url: str) -> AsyncIterator[list[OpenAIEngine]]:
    """Their engines, at one server, which comes back once the first of them has seen that it is away.

    That one has the question that takes it down. It would not take for a crash what it does not see.
    """
    ledgers = [CrashLedger(RedisAddress(url), MODEL) for _ in range(WORKERS)]
    engines = [OpenAIEngine(options(server), ledger) for ledger in ledgers]
    server.is_time = lambda: engines[0].state.kind == "waiting"
    for engine in engines:
        await engine.start()
    yield engines
    for engine in engines:
        await engine.stop()


async def test_of_the_questions_of_several_workers_only_that_which_crashes_the_server_fails(
    redis_server: EmbeddedServer,
) -> None:
    """The others, each alone at its own worker, are lost with it, and not taken for the reason."""
    async with SlowAndFragile() as server, workers(server, redis_server.url) as engines:
        questions = [a_question(f"q{number}", index=number, prompt=f"q{number}") for number in range(WORKERS)]
        questions[0] = a_question("q0", prompt=KILLER)
        pairs = zip(engines, questions, strict=True)
        killed, *others = await asyncio.gather(*(engine.answer(question) for engine, question in pairs))

    assert refusal(killed).kind == "server_error"
    assert {completion(outcome).texts[0] for outcome in others} == {"42"}
    # Once with the others.
    assert server.crashes <= 1 + CRASHES_ALONE


async def test_crashes_count_at_whichever_worker_they_happen(redis_server: EmbeddedServer) -> None:
    """A server that stays away has its questions returned to the queue, and another worker asks them next."""
    killer, alone = a_question(prompt=KILLER), Company(1, is_certain=True)
    ledgers = [CrashLedger(RedisAddress(redis_server.url), MODEL) for _ in range(WORKERS)]
    first, second, third = (Crashes(64, ledger) for ledger in ledgers)

    await first.add(killer, Company(64, is_certain=False), alone=True)
    await second.refresh()
    assert second.most_open(killer) == 1
    for crashes in (first, second):
        await crashes.add(killer, alone, alone=True)

    assert await third.add(killer, alone, alone=True) == CrashCount(0, CRASHES_ALONE)
    await third.refresh()
    assert third.most_open(killer) == 1
    await third.forget(killer)
    assert await ledgers[0].read() == {}
    for ledger in ledgers:
        await ledger.close()


async def test_one_question_at_a_time_is_asked_alone(redis_server: EmbeddedServer) -> None:
    """Whichever worker asks it."""
    ledgers = [CrashLedger(RedisAddress(redis_server.url), MODEL) for _ in range(WORKERS)]
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
    ledgers = [CrashLedger(RedisAddress(redis_server.url), MODEL) for _ in range(2)]
    async with ledgers[0].turn() as has, ledgers[1].turn() as lacks:
        assert (has, lacks) == (True, False)
    async with ledgers[1].turn() as has:
        assert has
    for ledger in ledgers:
        await ledger.close()
