"""Places among the open requests of one server, given out in the order in which they are asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place.

    Attributes:
        most_open: Requests that may be open while it is, itself included.
        sent_at: When it went out.
        open_then: How many were open then, itself included.
        is_alone: Whether no other was open at any time while it was.
        has_turn: Whether it goes out although others are held back.
    """

    most_open: int
    has_turn: bool = False
    sent_at: float = 0.0
    open_then: int = 0
    is_alone: bool = True


class Places:
    """Who is at the server, and who waits in line."""

    def __init__(self) -> None:
        self._inside: set[Ticket] = set()
        self._line: deque[tuple[Ticket, asyncio.Future[None]]] = deque()

    @property
    def open(self) -> int:
        """Requests that are at the server now."""
        return len(self._inside)

    @property
    def is_waited_for(self) -> bool:
        return bool(self._line)

    def line_up(self, ticket: Ticket) -> asyncio.Future[None]:
        """What it waits for; to be followed by `admit`, and at the end by `leave`."""
        entered = asyncio.get_running_loop().create_future()
        self._line.append((ticket, entered))
        return entered

    def leave(self, ticket: Ticket) -> None:
        """Wherever it is, it is not any more."""
        if ticket in self._inside:
            self._inside.remove(ticket)
        else:
            self._line = deque(one for one in self._line if one[0] is not ticket)

    def admit(self, size: int, *, only_turns: bool = False) -> None:
        """Let in whom `size`, and the wishes of those who are there or come, leave room for.

        `only_turns`: nobody but those whose turn it is, past the others in line.
        """
        line = deque(place for place in self._line if place[0].has_turn) if only_turns else self._line
        while line:
            ticket, entered = place = line[0]
            if not entered.done():
                if self.open >= min(size, ticket.most_open, *(other.most_open for other in self._inside)):
                    return
                self._enter(ticket)
                entered.set_result(None)
            self._line.remove(place)
            if only_turns:
                line.popleft()

    def dismiss(self, error: Exception) -> None:
        """End the wait of all in line with an error."""
        for _, entered in self._line:
            if not entered.done():
                entered.set_exception(error)
        self._line.clear()

    def _enter(self, ticket: Ticket) -> None:
        if self._inside:
            ticket.is_alone = False
            # Of more than one, each has had company already.
            next(iter(self._inside)).is_alone = False
        self._inside.add(ticket)
