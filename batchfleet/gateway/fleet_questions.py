"""Questions that somebody waits for, put into the queue; before batches, but never before all of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from batchfleet.client.answers import Answer, Failure
from batchfleet.client.session import Session
from batchfleet.client.single_questions import SingleQuestions
from batchfleet.gateway.errors import ApiError, too_many
from batchfleet.gateway.models import ServedModel
from batchfleet.gateway.options import GatewayOptions
from producer.questions.question_parser import ParsedQuestion

FULL_S = 2.0
"""So long a queue without room is passed over: answers that come make some all the time, and runs share it."""
COME_AGAIN_S = 2.0


class FleetQuestions:
    """Those of one gateway.

    Attributes:
        in_flight: By model, how many wait for their answers.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._session = Session(options.settings)
        self._asks = SingleQuestions(self._session)
        self._preparing = asyncio.Lock()
        self._full_since: float | None = None
        self.in_flight: Counter[str] = Counter()

    async def close(self) -> None:
        """Withdraw what is open, and ask nothing more."""
        await asyncio.to_thread(self._asks.close)
        await asyncio.to_thread(self._session.close)

    async def ask(self, questions: Sequence[ParsedQuestion], model: ServedModel) -> list[Answer | Failure]:
        """Ask questions of one request. Cancelling this withdraws them, and frees their places in the engine.

        Raises:
            ApiError: The queue is full, or no answer came in time.
            FleetError: The queue cannot be used.
        """
        self._check_room()
        while not self._asks.is_ready:
            async with self._preparing:
                if not self._asks.is_ready:
                    await asyncio.to_thread(self._asks.prepare)
        limit_s = self._options.limits.answer_timeout_s
        asked = []
        try:
            async with asyncio.timeout(limit_s):
                for question in questions:
                    priority = priority_for(self.in_flight[model.name], model.capacity, self._options)
                    asked.append(asyncio.wrap_future(self._asks.ask(replace(question, priority=priority), {})))
                    self.in_flight[model.name] += 1
                return await asyncio.gather(*asked)
        except TimeoutError:
            msg = f"No answer came within {limit_s:g} s; the question was withdrawn."
            raise ApiError(504, msg, code="timeout", headers={"x-should-retry": "false"}) from None
        finally:
            for future in asked:
                future.cancel()
            self.in_flight[model.name] -= len(asked)
            if not self.in_flight[model.name]:
                del self.in_flight[model.name]

    def _check_room(self) -> None:
        """Refuse where the queue has been full for a while: clients that come again later wait better than we do."""
        now = time.monotonic()
        waiting_for = self._asks.waiting_for
        self._full_since = (self._full_since or now) if waiting_for else None
        if self._full_since is not None and now - self._full_since > FULL_S:
            raise too_many(
                f"The queue of the fleet is full ({waiting_for}). Try again soon.", COME_AGAIN_S, code="queue_full"
            )


def priority_for(in_flight: int, capacity: int, options: GatewayOptions) -> int:
    """Of one more online question of a model of which so many are in flight.

    Priorities are strict: if all were urgent, a busy hour of them would leave batches nothing. Beyond their share of
    the capacity they take turns with the batches.
    """
    most = max(1, int(options.online_share * capacity))
    return options.online_priority if in_flight < most else options.batch_priority
