"""Sends the questions of a run as there is room, in a thread of its own.

Should Redis lose what it had accepted, they are sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from producer.options import ProducerOptions
from producer.redis_outage import RetryUntilAvailable, StoppedError
from producer.sender import CHUNK_BYTES, CHUNK_QUESTIONS, RunState, Sender
from producer.stream_source import QuestionSource
from wire.backoff import Backoff
from wire.errors import FleetError

log = logging.getLogger(__name__)

OPEN_END = -1
"""Number of questions of a run as long as it is not known."""
WAIT_S = 0.25
"""How long the thread waits at most before it looks around."""
WINDOW_S = 2.0
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
JOIN_S = 15.0


class NotFinishedError(FleetError):
    """The run stopped before every question had its record; the same command continues it."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is to be run.

    Attributes:
        run: Its id.
        fingerprint: What a resumed run must have in common with the first attempt.
        questions: How many there are; `OPEN_END` if that is not known yet.
        default_model: For questions that name none.
        full_window: What to say while the run's own window is full; nothing of a file's run, whose way that is.
        sends: Whether there are questions to send; otherwise somebody else has sent them, and their records are
            collected.
    """

    run: str
    fingerprint: dict[str, str]
    questions: int = OPEN_END
    default_model: str = ""
    full_window: str = ""
    sends: bool = True


class SenderThread:
    """Of one run.

    Args:
        say: Told why nothing is being accepted now, in words; nothing if something is.
        fail: Told what ends it early.

    Attributes:
        no_room: Whether the run's own window is full.
        all_sent: Set when no question waits to be accepted, nor ever will.
        read_again: Set with each look at where Redis is: it may have lost the news that records were handled. Whoever
            receives resets it.
    """

    def __init__(  # noqa: PLR0913 (each is a part of the run by itself)
        self,
        sender: Sender,
        source: QuestionSource,
        plan: RunPlan,
        options: ProducerOptions,
        retry: RetryUntilAvailable,
        stopping: threading.Event,
        *,
        say: Callable[[str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.no_room = False
        self.all_sent = threading.Event()
        self.read_again = False
        self._sender = sender
        self._source = source
        self._plan = plan
        self._options = options
        self._retry = retry
        self._stopping = stopping
        self._say = say
        self._fail = fail
        self._room = threading.Event()
        self._again = threading.Event()
        self._pause = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._in_doubt = False
        self._most = CHUNK_QUESTIONS
        # A daemon: a program that forgets to close its fleet must still be able to end.
        self._thread = threading.Thread(target=self._send_all, name=f"batchfleet questions of {plan.run}", daemon=True)

    def start(self) -> None:
        """Send from now on, if there is anything to send."""
        if self._plan.sends:
            self._thread.start()
        else:
            self.all_sent.set()

    def wake(self) -> None:
        """There may be room, or something to send again, or an end."""
        self._room.set()
        self._again.set()

    def room_came(self) -> None:
        """What was handled makes room in the run's window."""
        self._room.set()

    def join(self) -> None:
        """Wait until the thread has ended, which `stopping` and `wake` tell it to."""
        if self._thread.ident:
            self._thread.join(JOIN_S)

    def believe(self, state: RunState) -> None:
        """Take Redis' cursor for the one that counts.

        If it has gone back, Redis has lost what it had accepted, and that is to be sent again.
        """
        if state.cursor < self._source.position:
            log.warning("Redis has lost a part of run %s; what has no result is asked again", self._plan.run)
            self.all_sent.clear()
        self._source.believe(state)
        self.read_again = True
        self.wake()

    def _send_all(self) -> None:
        try:
            while not self._stopping.is_set():
                self._send()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (a thread has nobody else to tell)
            self._fail(error)

    def _send(self) -> None:
        outcome = self._retry.persist(self._offer)
        if outcome == "cancelled":
            self._source.drop_waiting()
        elif outcome == "window":
            # Only what we acknowledge makes room there; a chunk is a megabyte that is packed and sent to be refused.
            self._room.wait(WINDOW_S)
            self._room.clear()
        elif outcome in {"pending", "share", "memory"}:
            self._room.wait(self._pause.next_s())
            self._room.clear()
        elif self._source.is_over:
            if not self.all_sent.is_set():
                if self._plan.questions == OPEN_END:
                    self._retry.persist(lambda: self._sender.end(self._source.position))
                self.all_sent.set()
            if outcome == "nothing":
                # Until the last record has come: Redis may lose what it has accepted.
                self._again.wait(WAIT_S)
                self._again.clear()

    def _offer(self) -> str:
        """Send the next questions. Returns what became of them; `nothing` if there are none now."""
        if self._in_doubt:
            self.believe(self._sender.open())
            self._in_doubt = False
        options = self._options
        # A part of the window: a chunk as large as all of it would wait for the last answer of the chunk before. And a
        # part of the fleet's room, or it would wait for the moment when nobody else asks.
        most = min(self._most, max(1, options.run_window // 4), -(-options.max_pending_questions // 8))
        chunk = self._source.chunk(most, CHUNK_BYTES, WAIT_S)
        if chunk is None:
            return "nothing"
        # If no reply comes, it may have been accepted or not: ask before anything else.
        self._in_doubt = True
        sent = self._sender.send(chunk.start, chunk.until, chunk.questions, self._plan.default_model, chunk.mark)
        self._in_doubt = sent.outcome in {"cursor", "gone"}
        if sent.outcome == "ok":
            self._source.move_to(chunk.until)
            self._pause.reset()
            self._most = min(2 * self._most, CHUNK_QUESTIONS)
        elif sent.outcome == "memory" and len(chunk.questions) > 1:
            # Redis may have room for less than a chunk, and nothing that is under way need ever make more.
            self._most = len(chunk.questions) // 2
            return "fewer"
        elif sent.outcome in {"pending", "share", "memory"} and not options.wait_for_room:
            raise NotFinishedError(
                f"the fleet has no room for more: {sent.detail}. Without --no-wait the command waits for it"
            )
        self.no_room = sent.outcome == "window"
        self._say(self._plan.full_window if self.no_room else sent.detail)
        return sent.outcome
