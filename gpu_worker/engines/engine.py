"""What a worker needs of whatever answers: vLLM in this process, a server, or the stub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wire.failures import KINDS, Kind
from wire.messages import JsonObject, Question, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine made of one question.

    Attributes:
        texts: One or more answers, as many as `n` asked for.
        finish_reason: Of the first text, as the engine names it.
        usage: Tokens of the prompt (once) and of all texts together.
        params: The sampling parameters really used, defaults included.
        details: Anything else that the question asked for (logprobs, ...), JSON-able; None if nothing.
    """

    texts: list[str]
    finish_reason: str
    usage: Usage
    params: JsonObject
    details: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this engine gives no answer to this question; its neighbours are not concerned.

    `kind`, `message`: as in `wire.failures`. A refusal that is not `retryable` would be given by every worker.
    """

    kind: Kind
    message: str

    @property
    def retryable(self) -> bool:
        return KINDS[self.kind].retryable


class Engine(Protocol):
    """Answers questions, as many at a time as it is given.

    Attributes:
        kind: `vllm`, `openai` or `stub`.
        model: The model's name, under which questions are addressed to it.
        max_num_seqs: The most sequences that it works on at once. Whatever more it is given waits in it.
    """

    kind: str
    model: str
    max_num_seqs: int

    async def start(self) -> None:
        """Get ready to answer. Called once, before the worker takes any work.

        Raises:
            EngineBootError: It cannot; the message says what to change.
        """

    async def answer(self, question: Question) -> Completion | Refusal:
        """Answer one question; called for many at once. Cancelling the call takes the question out of the engine.

        Raises:
            EngineDeadError: The engine died or is dead; nothing is known about the question.
        """

    def progress(self) -> int:
        """A count that goes up whenever any sequence moves on, by a token or by finishing. What renews leases."""

    def check(self) -> None:
        """Raise EngineDeadError if the engine is dead. Cheap; called every heartbeat, also when nothing is in flight."""

    async def stop(self) -> None:
        """Let go of everything (processes, GPU memory, connections). Safe to call at any time, also twice."""
