"""When a request may go out: as many at once as the server takes, and none while it is ill.

Of a fault, it is first unknown whether the question or the server is to blame. If the server answers another question
afterwards, it is the question; a probe, a question of our own for one token, tells at once. A server that fails on the
probe is waited for, and probed again, with growing pauses or when it has said it wants to be asked again; or it is
`unusable`, if waiting does not help. What was at a server that went away may have been the reason: see `crashes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import READY, EngineState
from gpu_worker.engines.openai.faults import Blame, Fault, unusable_because
from gpu_worker.engines.openai.places import Places, Ticket
from gpu_worker.engines.openai.window import RequestWindow
from wire.backoff import Backoff
from wire.errors import EngineUnusableError

log = logging.getLogger(__name__)


class Verdict(Enum):
    """Why a request failed."""

    QUESTION = "the server answers others"
    SERVER = "the server is ill, or full"
    CRASH = "the server went away with it"


class Admission:
    """Lets the requests to one server out, in the order in which they come.

    Args:
        url: For messages.
        probe: Asks the server for a token, in the form (chat or not) that is told; returns what went wrong, or None.
        backoff: Between probes of a server that fails.
        hold_s: A wait that will last longer, or has, is one for which another worker may have what is held here.
    """

    def __init__(
        self,
        window: RequestWindow,
        url: str,
        probe: Callable[[bool], Awaitable[Fault | None]],
        *,
        backoff: Backoff,
        hold_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.answered_at = float("-inf")
        """When a question was last answered."""
        self.answers = 0
        """Questions that were."""
        self._window = window
        self.url = url
        self._probe = probe
        self._backoff = backoff
        self._hold_s = hold_s
        self._now = now
        self._places = Places()
        self._state = READY
        self._waiting_since = 0.0
        self._asked_until = self._pause_until = float("-inf")
        self._is_hung = self._is_quiet = False
        self._lost = 0
        """Requests that were lost since the server was last known to be well, or ill."""
        self._doubt: asyncio.Future[tuple[bool, int]] | None = None
        self._examination: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    @property
    def open(self) -> int:
        """Requests that are at the server now."""
        return self._places.open

    @property
    def state(self) -> EngineState:
        state = self._state
        if state.kind != "waiting":
            return state
        now, until = self._now(), state.until or 0.0
        is_long = max(until - now, now - self._waiting_since) > self._hold_s
        return EngineState(state.kind, state.reason, state.until, lets_go=is_long and (self._is_hung or not self.open))

    @contextlib.asynccontextmanager
    async def place(self, most_open: int, *, has_turn: bool = False) -> AsyncIterator[Ticket]:
        """A place among the open requests; waited for as long as it takes.

        Args:
            most_open: Requests that may be open as long as it is taken, itself included.
            has_turn: It is given out in a quiet too.

        Raises:
            EngineUnusableError: There will be none.
        """
        self.check()
        ticket = Ticket(most_open, has_turn)
        entered = self._places.line_up(ticket)
        self._admit()
        try:
            await entered
            ticket.sent_at, ticket.open_then = self._now(), self.open
            yield ticket
        finally:
            self._places.leave(ticket)
            self._admit()

    @property
    def has_company(self) -> bool:
        """Whether anything is at the server, or waits for a place."""
        return self.open > 0 or self._places.is_waited_for

    def keep_quiet(self, wanted: bool) -> None:  # noqa: FBT001 (the only thing that it is told)
        """Let nobody out but those whose turn it is, while that is `wanted`."""
        if wanted != self._is_quiet:
            log.info("only what may crash the server goes out" if wanted else "all questions go out again")
            self._is_quiet = wanted
            self._admit()

    def check(self) -> None:
        """Raise EngineUnusableError if the server is unusable."""
        if self._state.kind == "unusable":
            raise EngineUnusableError(self._state.reason)

    def answered(self, ticket: Ticket) -> None:
        """The server has answered a question, be it by refusing it."""
        now = self.answered_at = self._now()
        self.answers += 1
        self._backoff.reset()
        self._window.answered(
            now,
            sent_at=ticket.sent_at,
            open_then=ticket.open_then,
            is_full=self._is_full(),
        )
        self._news.set()

    def failed(self, fault: Fault, ticket: Ticket, *, chat: bool) -> None:
        """A request failed.

        To be called before its place is free: what the server asks for holds for the next request already.
        """
        self._lost += fault.is_lost
        if fault.blame is Blame.TOO_MANY:
            self._window.refused(self._now(), sent_at=ticket.sent_at, open_then=ticket.open_then)
        if fault.retry_after_s and fault.blame in {Blame.TOO_MANY, Blame.PASSING}:
            self._wait(fault)
            self.suspect(chat=chat)

    async def judge(self, fault: Fault, ticket: Ticket, *, chat: bool) -> Verdict:
        """Why a request failed.

        Returns when that is known, which may take as long as the server is ill.

        Raises:
            EngineUnusableError: The server cannot be used.
        """
        self.check()
        if fault.blame is Blame.TOO_MANY:
            if self.answered_at > ticket.sent_at:
                return Verdict.QUESTION
            if self.open and not fault.retry_after_s:
                return Verdict.SERVER
            if self._examination is None:
                self._pause_until = self._now() + self._backoff.next_s()
        elif self._state.kind == "waiting" and not fault.retry_after_s:
            # Together with others: the server is known to be ill.
            return Verdict.CRASH if fault.is_lost else Verdict.SERVER
        self.suspect(chat=chat)
        if self._doubt is None:
            self._doubt = asyncio.get_running_loop().create_future()
            # Nobody may be left to hear of it.
            self._doubt.add_done_callback(lambda doubt: doubt.cancelled() or doubt.exception())
        is_well, lost = await asyncio.shield(self._doubt)
        if fault.is_lost and (lost > 1 or not is_well):
            return Verdict.CRASH
        return Verdict.QUESTION if is_well and not fault.is_unreached else Verdict.SERVER

    def suspect(self, *, chat: bool, is_hung: bool = False) -> None:
        """Have the server probed, unless that is under way.

        `is_hung`: it is known to do nothing for the requests that it has.
        """
        if self._examination is None:
            self._is_hung = is_hung
            self._examination = asyncio.create_task(self._examine(self._now(), chat=chat))

    def tick(self) -> None:
        """To be called about every second."""
        self._window.tick(self._now(), is_full=self._is_full())
        self._admit()

    async def stop(self) -> None:
        """Let nobody out any more."""
        if self._state.kind != "unusable":
            self.end("it was stopped")
        if self._examination is not None:
            await cancel_and_wait([self._examination])

    async def _examine(self, since: float, *, chat: bool) -> None:
        """Until the server is well or unusable."""
        try:
            while True:
                await self._sleep_until_due(since)
                fault = None if self._has_answered(since) else await self._probe(chat)
                if fault is None or fault.blame is Blame.QUESTION:
                    break
                if fault.blame is Blame.PERSON:
                    self.end(unusable_because(fault, self.url, chat=chat))
                    return
                if fault.blame is Blame.TOO_MANY and self.open and not fault.retry_after_s:
                    # What fills the server is our own: the answers to it will tell.
                    self._pause_until = self._now() + self._backoff.next_s()
                elif not self._has_answered(since):
                    since = self._now()
                    if fault.blame is not Blame.TOO_MANY and not fault.is_timeout:
                        self._window.restart(self._now())
                    self._wait(fault)
                    self._settle(is_well=False)
            self._become_ready()
            self._settle(is_well=True)
        except Exception as error:
            # A bug of ours: whoever waits for the outcome must not do so for ever.
            log.exception("the server could not be examined")
            self.end(f"it could not be examined: {type(error).__name__}: {error}")
        finally:
            self._examination = None

    def _has_answered(self, since: float) -> bool:
        """Whether an answer tells that the server is well.

        Not where a request was lost: it may have taken the server down while the answer was on its way.
        """
        return self.answered_at > since and not self._lost

    async def _sleep_until_due(self, since: float) -> None:
        """As long as the server asked for, to the second.

        A pause of our own is over as soon as a question is answered.
        """
        while (until := max(self._asked_until, 0.0 if self._has_answered(since) else self._pause_until)) > self._now():
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - self._now()):
                    await self._news.wait()

    def _wait(self, fault: Fault) -> None:
        """Become `waiting`: for as long as the server asks for, else for a pause that grows."""
        now = self._now()
        if fault.retry_after_s:
            self._asked_until = max(self._asked_until, now + fault.retry_after_s)
            reason = f"the server asks for {fault.retry_after_s:g} s (HTTP {fault.status}): {fault.message}"
        else:
            self._pause_until = now + self._backoff.next_s()
            reason = f"{self.url}: {fault.told}"
        if self._state.kind != "waiting":
            self._waiting_since = now
            log.warning("waiting: %s", reason)
        self._state = EngineState("waiting", reason, max(self._asked_until, self._pause_until))
        self._news.set()

    def _become_ready(self) -> None:
        if self._state.kind == "waiting":
            log.info("%s answers again, after %.0f s", self.url, self._now() - self._waiting_since)
            self._state = READY
        self._is_hung = False
        self._admit()

    def end(self, reason: str) -> None:
        """Become `unusable`."""
        self._state = EngineState("unusable", reason)
        self._places.dismiss(EngineUnusableError(reason))
        if self._doubt is not None and not self._doubt.done():
            self._doubt.set_exception(EngineUnusableError(reason))

    def _settle(self, *, is_well: bool) -> None:
        doubt, self._doubt = self._doubt, None
        lost, self._lost = self._lost, 0
        if doubt is not None and not doubt.done():
            doubt.set_result((is_well, lost))

    def _is_full(self) -> bool:
        return self.open >= self._window.size and self._places.is_waited_for

    def _admit(self) -> None:
        self._places.admit(self._window.size if self._state.kind == "ready" else 0, only_turns=self._is_quiet)
