"""What a worker needs of an engine: vLLM in this process, a server, or the stub."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from wire.failures import KINDS, Kind
from wire.messages import JsonObject, Question, Usage


class Completion(Struct, frozen=True, gc=False):
    """What an engine made of one question.

    Attributes:
        texts: One or more answers, as many as `n` asked for.
        finish_reason: Of the first text, as the engine names it.
        usage: Tokens of the prompt (once) and of all texts together.
        params: The sampling parameters really used, defaults included.
        details: Anything else that the question asked for (logprobs, ...), JSON-able; None if nothing.
        reasoning: What was thought before each text, None where nothing was; empty if nobody tells it apart.
        tool_calls: The calls of tools in each answer, in OpenAI's form, None where there are none; empty if no tools
            were given.
    """

    texts: list[str]
    finish_reason: str
    usage: Usage
    params: JsonObject
    details: JsonObject | None = None
    reasoning: Sequence[str | None] = ()
    tool_calls: Sequence[list[JsonObject] | None] = ()


class Vectors(Struct, frozen=True, gc=False):
    """What an engine made of one question that wants no text.

    Attributes:
        vectors: As in `wire.messages.Answer`.
        usage: Tokens of all inputs together.
        params: Those really used.
        details: What else is to be known: the `labels` of classes.
    """

    vectors: list[bytes]
    usage: Usage
    params: JsonObject
    details: JsonObject | None = None


def packed(numbers: Iterable[float]) -> bytes:
    """A vector as it travels."""
    found = array("f", numbers)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this engine does not answer this question; its neighbours are not affected.

    `kind`, `message`: as in `wire.failures`. A refusal that is not `retryable` would be given by every worker.
    `is_final`: the engine itself has tried as often as makes sense. `evidence`: as in `wire.messages.ErrorDetail`.
    """

    kind: Kind
    message: str
    is_final: bool = False
    evidence: JsonObject | None = None

    @property
    def retryable(self) -> bool:
        return KINDS[self.kind].retryable


@dataclass(frozen=True, slots=True)
class EngineState:
    """Whether an engine takes questions.

    Attributes:
        kind: `ready`; `waiting`, which passes by itself: take no questions, those in the engine wait; or `unusable`
            until a person does something.
        reason: In words, for people.
        until: When it is to be tried again, by `time.monotonic()`; None if that is not known.
        lets_go: Nothing is done for the questions in it, nor will be for a while: others may have them.
    """

    kind: Literal["ready", "waiting", "unusable"]
    reason: str = ""
    until: float | None = None
    lets_go: bool = False

    def told(self, now: float) -> str:
        """The reason, and how long it will last, by `time.monotonic()`."""
        left_s = 0.0 if self.until is None else self.until - now
        return f"{self.reason}; asked again in {left_s:.0f} s" if left_s >= 1 else self.reason


READY = EngineState("ready")


Outcome = Completion | Vectors | Refusal


class Engine(Protocol):
    """Answers questions, as many at a time as it is given.

    Attributes:
        kind: `vllm`, `openai` or `stub`.
        model: The model's name, under which questions are addressed to it.
        max_num_seqs: The most sequences that it works on at once. Whatever more it is given waits in it.
        state: Read often, also before `start` has returned: it says what that waits for.
    """

    kind: str
    model: str
    max_num_seqs: int

    @property
    def state(self) -> EngineState: ...

    def prepare(self) -> None:
        """Begin with what `start` needs that takes neither a GPU nor work; returns at once. Safe to call twice."""

    async def start(self) -> None:
        """Get ready to answer. Called once, before the worker takes any work.

        Raises:
            EngineBootError: It cannot; the message says what to change.
        """

    async def answer(self, question: Question) -> Outcome:
        """Answer one question; called for many at once. Cancelling the call takes the question out of the engine.

        Raises:
            EngineDeadError: The engine died or is dead; nothing is known about the question.
            EngineUnusableError: Its state is `unusable`; the question is not the reason.
        """

    def progress(self) -> int:
        """A count that goes up whenever any sequence moves on, by a token or by finishing. What renews leases."""

    def check(self) -> None:
        """Cheap; called every heartbeat, also when nothing is in flight.

        Raises:
            EngineDeadError, EngineUnusableError: As `answer`.
        """

    async def stop(self) -> None:
        """Release everything (processes, GPU memory, connections). Safe to call at any time, also twice."""
