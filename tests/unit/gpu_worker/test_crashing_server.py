"""A server that a question takes down: the question fails, the others are answered, and the server is left in peace."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from gpu_worker.engines.openai.admission import Admission, Verdict
from gpu_worker.engines.openai.crashes import CRASHES_ALONE, MOST_REMEMBERED, Company, CrashCount, Crashes
from gpu_worker.engines.openai.engine import OpenAIEngine
from gpu_worker.engines.openai.faults import Fault
from gpu_worker.engines.openai.places import Places, Ticket
from gpu_worker.engines.openai.window import RequestWindow
from tests.builders import a_question
from tests.eventually import until
from tests.unit.gpu_worker.test_openai_engine import an_engine, completion, options, refusal
from tests.unit.scripted_server import DROPPED, Asked, Reply, ScriptedServer, a_text, an_error
from wire.backoff import Backoff

KILLER = "KILLER"
TRIES = 4


class Fragile(ScriptedServer):
    """Goes away with all that it has whenever it is asked KILLER; comes back when `is_time`.

    Without such a time, at once: as behind a load balancer, who connects finds it there.
    """

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.crashes = 0
        self.is_time: Callable[[], bool] | None = None
        self._coming_back: asyncio.Task[None] | None = None

    async def _answer(self, asked: Asked) -> Reply:
        if KILLER in asked.body["prompt"]:
            self.crashes += 1
            if self.is_time is None:
                self.hang_up()
            else:
                await self.close()
                self._coming_back = asyncio.create_task(self._come_back(self.is_time))
            return DROPPED
        await asyncio.sleep(0.01)
        return a_text()

    async def _come_back(self, is_time: Callable[[], bool]) -> None:
        await until(is_time)
        await self.listen()


@pytest.mark.parametrize(("restart", "most"), [("after a while", 3 + CRASHES_ALONE), ("at once", 3 + CRASHES_ALONE)])
async def test_a_question_that_takes_the_server_down_fails_alone(restart: str, most: int) -> None:
    """After a bounded number of crashes, with what was seen last; everybody else is answered."""
    async with Fragile() as server:
        engine = OpenAIEngine(options(server, tries=TRIES))
        if restart == "after a while":
            server.is_time = lambda: engine.state.kind == "waiting"
        await engine.start()
        questions = [a_question(f"q{number}", index=number, prompt=f"q{number}") for number in range(60)]
        questions[20] = a_question("q20", index=20, prompt=KILLER)
        outcomes = await asyncio.gather(*(engine.answer(question) for question in questions))
        await engine.stop()

    failed = refusal(outcomes.pop(20))
    assert (failed.kind, failed.retryable, failed.is_final) == ("server_error", True, True)
    assert re.search(
        r"the server went away, or hung up, .* the last 3 times with nothing else; last: the con", failed.message
    )
    assert {completion(outcome).texts[0] for outcome in outcomes} == {"42"}
    assert server.crashes <= most


async def test_what_a_question_did_is_known_after_it_was_given_back() -> None:
    """A server that needs minutes to come back has its questions returned to the queue each time."""
    async with Fragile() as server:
        engine = OpenAIEngine(options(server, tries=TRIES))
        server.is_time = lambda: engine.state.kind == "waiting"
        await engine.start()
        asking = asyncio.create_task(engine.answer(a_question(prompt=KILLER)))
        for crash in range(1, CRASHES_ALONE):
            await until(lambda crash=crash: server.crashes == crash and engine.state.kind == "waiting")  # type: ignore[misc]
            # The verdict reaches whoever asks a few turns of the loop after the state that it follows from.
            for _ in range(10):
                await asyncio.sleep(0)
            asking.cancel()
            await until(lambda: engine.state.kind == "ready")
            asking = asyncio.create_task(engine.answer(a_question(prompt=KILLER)))

        assert refusal(await asking).kind == "server_error"
        await engine.stop()

    assert server.crashes == CRASHES_ALONE


async def test_a_question_that_alone_is_one_too_many_ends() -> None:
    """Others are at the server whenever it is refused, and are answered later: a probe tells whose fault it is."""

    async def script(asked: Asked) -> Reply:
        if asked.body["prompt"] == "bad":
            return an_error(429, "not this one")
        await asyncio.sleep(0.02)
        return a_text()

    async def ask_on() -> None:
        while True:
            completion(await engine.answer(a_question(prompt="good")))

    async with an_engine(script, tries=TRIES) as (engine, _):
        others = [asyncio.create_task(ask_on()) for _ in range(8)]
        outcome = refusal(await engine.answer(a_question(index=1, prompt="bad")))
        for other in others:
            other.cancel()

    assert (outcome.kind, outcome.retryable) == ("server_error", True)
    assert outcome.message.endswith("last: HTTP 429: not this one")


async def test_a_server_that_is_full_for_long_convicts_nobody() -> None:
    """What is refused while a probe is refused too is the server's to answer for, however often it happens."""
    refused = 0

    def script(_: Asked) -> Reply:
        nonlocal refused
        refused += 1
        return an_error(429) if refused <= 20 * TRIES else a_text()

    async with an_engine(script, tries=TRIES, busy_s=0.0) as (engine, _):
        outcomes = await asyncio.gather(*(engine.answer(a_question(index=number)) for number in range(8)))

    assert {completion(outcome).texts[0] for outcome in outcomes} == {"42"}


async def test_what_did_not_reach_the_server_is_no_question_s_fault() -> None:
    """Though the server was back, and well, by the time that somebody asked."""

    async def probe(_: bool) -> None:  # noqa: FBT001 (as the engine's)
        return None

    admission = Admission(RequestWindow(4, now=0.0), "url", probe, backoff=Backoff(), hold_s=30.0)
    verdicts = [
        await admission.judge(fault, Ticket(4), chat=False)
        for fault in (Fault("connection refused", is_unreached=True), Fault("broken", 500))
    ]
    await admission.stop()

    assert verdicts == [Verdict.SERVER, Verdict.QUESTION]


async def test_an_answer_from_before_a_crash_does_not_tell_that_the_server_is_well() -> None:
    """It was on its way when the server went away; only what is asked afterwards can tell."""
    probed = iter([Fault("connection refused", is_unreached=True), None])

    async def probe(_: bool) -> Fault | None:  # noqa: FBT001 (as the engine's)
        return next(probed)

    admission = Admission(RequestWindow(4, now=0.0), "url", probe, backoff=Backoff(first_s=0.001), hold_s=30.0)
    fault, ticket = Fault("connection reset", is_lost=True), Ticket(4)
    admission.failed(fault, ticket, chat=False)
    judged = asyncio.create_task(admission.judge(fault, ticket, chat=False))
    await asyncio.sleep(0)
    admission.answered(Ticket(4))

    assert await judged is Verdict.CRASH
    await admission.stop()


async def test_the_company_of_what_was_there_at_crashes_shrinks_to_none() -> None:
    """To a quarter with each; and no more is remembered than fits."""
    crashes, question, company = Crashes(64), a_question(), Company(1, is_certain=True)

    sizes = [crashes.most_open(question)]
    for _ in range(4):
        await crashes.add(question, company, alone=False)
        sizes.append(crashes.most_open(question))

    assert sizes == [64, 16, 4, 1, 1]
    assert await crashes.add(question, company, alone=True) == CrashCount(4, 1)
    for number in range(1, MOST_REMEMBERED + 1):
        await crashes.add(a_question(index=number), company, alone=False)
    assert crashes.most_open(question) == 64


@pytest.mark.parametrize(
    ("accused", "answers", "culprit"), [(1, 0, "it"), (2, 5, "it"), (3, 0, "server"), (8, 5, "it")]
)
async def test_who_is_accused_is_convicted_once_another_is_answered(accused: int, answers: int, culprit: str) -> None:
    """Or if there is no other; of several, while nobody is answered, it is none."""
    crashes, questions = Crashes(64, settle_s=0.001), [a_question(index=number) for number in range(accused)]
    for question in questions:
        for _ in range(CRASHES_ALONE):
            assert not crashes.may_convict(question)
            await crashes.add(question, Company(1, is_certain=True), alone=True)
        assert crashes.may_convict(question)
    await crashes.refresh(answers)

    assert await crashes.convicts(questions[0], lambda: True, lambda: False) is (culprit == "it")


async def test_who_wants_little_company_gets_it() -> None:
    """In the order of the line, whatever the size allows; who is gone makes room, in line as inside."""
    places, tickets = Places(), [Ticket(most_open) for most_open in (9, 9, 2, 1, 9)]
    entered = [places.line_up(ticket) for ticket in tickets]

    def inside() -> list[int]:
        places.admit(3)
        return [number for number, future in enumerate(entered) if future.done()]

    assert inside() == [0, 1]
    places.leave(tickets[0])
    assert inside() == [0, 1, 2]
    places.leave(tickets[1])
    assert inside() == [0, 1, 2]
    places.leave(tickets[2])
    assert inside() == [0, 1, 2, 3]
    assert [ticket.is_alone for ticket in tickets[:4]] == [False, False, False, True]
    places.leave(tickets[4])
    places.leave(tickets[3])
    assert inside() == [0, 1, 2, 3]
    assert (places.open, places.is_waited_for) == (0, False)
