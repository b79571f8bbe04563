"""The client for programs on an event loop.

Redis is spoken to in threads of its own, so the loop never waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, Literal, Self, overload

from batchfleet.client.answers import Answer, Failure
from batchfleet.client.async_run import AsyncRun, Signal
from batchfleet.client.fleet import LocalEngine, local_session
from batchfleet.client.live_run import LiveRun, check_many, feed, generate_id
from batchfleet.client.question_errors import Errors, check_errors, raise_if_failed
from batchfleet.client.question_numbers import QuestionNumbers
from batchfleet.client.questions import QuestionLike, names_model
from batchfleet.client.session import ConfigLike, Session, checked_run_id, reaching_settings
from batchfleet.client.single_questions import SingleQuestions
from batchfleet.status.model import FleetStatus
from producer.bounded_queue import BoundedQueue
from producer.stream_source import PendingQuestion

_NONE: Mapping[str, Any] = {}
Questions = Iterable[QuestionLike] | AsyncIterable[QuestionLike]


class AsyncFleet:
    """`Fleet` for asyncio; used in an `async with` statement. The arguments are the same.

    It belongs to one event loop.
    """

    def __init__(
        self,
        redis: str | None = None,
        *,
        model: str | None = None,
        namespace: str | None = None,
        config: ConfigLike = None,
    ) -> None:
        self._begin(Session(reaching_settings(redis, model, namespace, config)))

    def _begin(self, session: Session) -> None:
        self._session = session
        self._asks = SingleQuestions(session)
        self._preparing = asyncio.Lock()

    @classmethod
    async def local(
        cls,
        engine: LocalEngine = "stub",
        *,
        workers: int = 1,
        model: str | None = None,
        redis: str | None = None,
        config: ConfigLike = None,
    ) -> Self:
        """As `Fleet.local`: `async with await AsyncFleet.local("stub") as fleet`."""
        session = await asyncio.to_thread(local_session, engine, workers, model, redis, config)
        fleet = cls.__new__(cls)
        fleet._begin(session)  # noqa: SLF001 (it is ours)
        return fleet

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._session.check)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Fleet.close`."""
        await asyncio.to_thread(self._asks.close)
        await asyncio.to_thread(self._session.close)

    @overload
    async def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Literal["raise"] = "raise",
        timeout_s: float | None = None,
    ) -> Answer: ...
    @overload
    async def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Errors,
        timeout_s: float | None = None,
    ) -> Answer | Failure: ...
    async def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Errors = "raise",
        timeout_s: float | None = None,
    ) -> Answer | Failure:
        """Ask one question. Thousands may be under way at once: they travel together, over the same two connections.

        Cancelling the task, or a time-out around it, withdraws the question.

        Raises:
            QuestionFailedError: With `errors="raise"`: it failed.
            TimeoutError: No answer came within `timeout_s` seconds; the question is withdrawn.
            FleetError: Redis cannot be reached, or refuses.
        """
        check_errors(errors)
        try:
            async with asyncio.timeout(timeout_s):
                while not self._asks.is_ready or not (self._session.model or names_model(question)):
                    await self._prepare(question)
                return raise_if_failed(await asyncio.wrap_future(self._asks.ask(question, params)), errors)
        except TimeoutError:
            raise TimeoutError(
                "no answer in time"
                if timeout_s is None
                else f"no answer within {timeout_s:g} s; the question is withdrawn"
            ) from None

    async def _prepare(self, question: QuestionLike) -> None:
        """Speak to Redis where `ask` would have to: the loop must not wait for that."""
        async with self._preparing:
            if not (self._session.model or names_model(question)):
                await asyncio.to_thread(self._session.find_model)
            if not self._asks.is_ready:
                await asyncio.to_thread(self._asks.prepare)

    @overload
    def answer(
        self, questions: Questions, *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Literal["raise"] = "raise", timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> AsyncIterator[Answer]: ...  # fmt: skip
    @overload
    def answer(
        self, questions: Questions, *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Errors, timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> AsyncIterator[Answer | Failure]: ...  # fmt: skip
    async def answer(
        self, questions: Questions, *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Errors = "raise", timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> AsyncIterator[Answer | Failure]:  # fmt: skip
        """As `Fleet.answer`; `questions` may be asynchronous too."""
        check_errors(errors)
        async with await self.submit(questions, run=run, params=params, window=window, samples=samples) as submitted:
            async for result in submitted.results(errors=errors, timeout_s=timeout_s):
                yield result

    async def submit(
        self,
        questions: Questions,
        *,
        run: str | None = None,
        params: Mapping[str, Any] = _NONE,
        window: int | None = None,
        samples: int = 0,
    ) -> AsyncRun:
        """As `Fleet.submit`; `questions` may be asynchronous too, and is then gone through by a task of this loop."""
        check_many(questions)
        submitted = AsyncRun(self._session, generate_id(run))
        live, room = submitted._live, Signal()  # noqa: SLF001 (it is ours)
        inbox, numbering = await asyncio.to_thread(live.begin, params, window, samples, room.set)
        if isinstance(questions, AsyncIterable):
            submitted._feeding = asyncio.create_task(_feed(questions, live, inbox, numbering, room))  # noqa: SLF001 (it is ours)
        else:
            feed(questions, live, inbox, numbering)
        return submitted

    async def run(self, run: str) -> AsyncRun:
        """As `Fleet.run`."""
        found = AsyncRun(self._session, checked_run_id(run))
        await found.status()
        return found

    async def status(self) -> FleetStatus:
        """As `Fleet.status`."""
        return await asyncio.to_thread(self._session.status)


async def _feed(
    questions: AsyncIterable[QuestionLike],
    live: LiveRun,
    inbox: BoundedQueue[PendingQuestion],
    numbering: QuestionNumbers,
    room: Signal,
) -> None:
    try:
        async for question in questions:
            for given in (
                numbering.give(question) if numbering.knows_model else await asyncio.to_thread(numbering.give, question)
            ):
                while not inbox.offer(given):
                    if inbox.is_closed:
                        return
                    await room.wait()
        numbering.end()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 (whoever takes the results gets it)
        live.fail(error)
    else:
        inbox.finish()
