"""Stands in for vLLM where there is none, with its shape: continuous batching on a step clock. It computes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections import defaultdict, deque
from dataclasses import dataclass

from gpu_worker.engines.engine import READY, Completion, Refusal
from gpu_worker.engines.sampling_params import configured_params, effective_params
from wire.errors import EngineDeadError
from wire.messages import JsonObject, Question, Usage

log = logging.getLogger(__name__)

NEVER = -1
WORDS = (
    "the",
    "a",
    "of",
    "to",
    "energy",
    "mass",
    "force",
    "light",
    "water",
    "cell",
    "heat",
    "time",
    "so",
    "it",
    "is",
    "therefore",
    "one",
    "two",
)

_LOOP = WORDS * 8


@dataclass(frozen=True, slots=True)
class StubOptions:
    """The stub's shape and faults.

    Attributes:
        model: Name under which questions are addressed to it.
        max_num_seqs: Most sequences at once; more wait, in order of arrival.
        step_s: Time of one decode step, in seconds, in which every running sequence gains one token; 0: answers cost
            nothing.
        min_tokens, max_tokens: Lengths vary by question between these, both included.
        sampling_defaults: As for a real engine; recorded with every answer.
        refuse_on: Substring of prompts that are refused; None for never.
        crash_on: Substring of prompts that kill the process.
        hang_on: Substring of prompts whose answer never ends, and makes no progress; what runs beside it continues.
    """

    model: str = "stub"
    max_num_seqs: int = 64
    step_s: float = 0.0
    min_tokens: int = 8
    max_tokens: int = 128
    sampling_defaults: JsonObject | None = None
    refuse_on: str | None = None
    crash_on: str | None = None
    hang_on: str | None = None


@dataclass(eq=False, slots=True)
class _Sequence:
    """`last_step`: with which it ends; None while it waits for a place."""

    tokens: int
    finished: asyncio.Future[None]
    last_step: int | None = None


class StubEngine:
    """Deterministic: the text depends on the question alone, not on what runs beside it."""

    kind = "stub"
    state = READY

    def __init__(self, options: StubOptions) -> None:
        self.model = options.model
        self.max_num_seqs = options.max_num_seqs
        self._options = options
        self._defaults = configured_params(options.sampling_defaults or {})
        self._queued: deque[_Sequence] = deque()
        # By their last step, so that a step costs nothing for those that continue: one process may stand in for many
        # workers.
        self._running: defaultdict[int, set[_Sequence]] = defaultdict(set)
        self._moving = self._hanging = 0
        self._step = 0
        self._arrived = asyncio.Event()
        self._stepping: asyncio.Task[None] | None = None
        self._progress = 0
        self._dead = False

    async def start(self) -> None:
        if self._options.step_s > 0:
            self._stepping = asyncio.create_task(self._step_for_ever())

    async def answer(self, question: Question) -> Completion | Refusal:
        if self._dead:
            msg = "the stub engine was stopped"
            raise EngineDeadError(msg)
        text = question.text
        refusal = self._fault(text)
        if refusal is not None:
            return refusal
        params = effective_params(question.params, self._defaults, chat=question.messages is not None)
        if isinstance(params, Refusal):
            return params
        # As a model: the seed makes a difference, unless the most likely token is taken each time.
        drawn = f"\0{params['seed']}" if params.get("temperature") and params.get("seed") is not None else ""
        seed = hashlib.blake2b((text + drawn).encode(), digest_size=8).digest()
        tokens, finish_reason = self._length(seed, params.get("max_tokens"))
        if self._options.hang_on is not None and self._options.hang_on in text:
            tokens = NEVER
        await self._run(tokens)
        start = seed[0] % len(WORDS)
        loop = _LOOP if start + tokens <= len(_LOOP) else WORDS * (2 + tokens // len(WORDS))
        usage = Usage(prompt_tokens=max(1, len(text) // 4), completion_tokens=tokens)
        return Completion([" ".join(loop[start : start + tokens])], finish_reason, usage, params)

    def progress(self) -> int:
        return self._progress

    def check(self) -> None:
        if self._dead:
            msg = "the stub engine was stopped"
            raise EngineDeadError(msg)

    async def stop(self) -> None:
        self._dead = True
        if self._stepping is not None:
            self._stepping.cancel()

    def _fault(self, text: str) -> Refusal | None:
        options = self._options
        if options.crash_on is not None and options.crash_on in text:
            log.critical("stub.crash_on was seen: the worker process ends now")
            os.kill(os.getpid(), signal.SIGKILL)
        if options.refuse_on is not None and options.refuse_on in text:
            return Refusal("refused", f"the prompt contains stub.refuse_on = {options.refuse_on!r}")
        return None

    def _length(self, seed: bytes, max_tokens: object) -> tuple[int, str]:
        spread = self._options.max_tokens - self._options.min_tokens + 1
        tokens = self._options.min_tokens + int.from_bytes(seed, "big") % spread
        if isinstance(max_tokens, int) and max_tokens < tokens:
            return max_tokens, "length"
        return tokens, "stop"

    async def _run(self, tokens: int) -> None:
        if self._stepping is None:
            if tokens == NEVER:
                await asyncio.get_running_loop().create_future()
            self._progress += 1
            return
        sequence = _Sequence(tokens, asyncio.get_running_loop().create_future())
        self._queued.append(sequence)
        self._arrived.set()
        try:
            await sequence.finished
        except asyncio.CancelledError:
            if sequence.last_step is None:
                self._queued.remove(sequence)
            elif sequence.last_step == NEVER:
                self._hanging -= 1
            elif sequence in (running := self._running.get(sequence.last_step, set())):
                running.remove(sequence)
                self._moving -= 1
            raise

    async def _step_for_ever(self) -> None:
        """Schedule, run, hand out: as a real engine's core does, with sleep for the work."""
        loop = asyncio.get_running_loop()
        next_step = loop.time()
        while True:
            if not self._queued and not self._moving:
                self._arrived.clear()
                await self._arrived.wait()
                next_step = loop.time()
            while self._queued and self._moving + self._hanging < self.max_num_seqs:
                self._admit(self._queued.popleft())
            # Steps keep to the clock: a late wake-up is made up for, as a GPU would not wait for the host either.
            next_step = max(next_step + self._options.step_s, loop.time())
            await asyncio.sleep(next_step - loop.time())
            self._step += 1
            self._progress += self._moving
            for sequence in self._running.pop(self._step, ()):
                self._moving -= 1
                if not sequence.finished.done():
                    sequence.finished.set_result(None)

    def _admit(self, sequence: _Sequence) -> None:
        if sequence.tokens == NEVER:
            sequence.last_step = NEVER
            self._hanging += 1
            return
        # One of no tokens takes a step nevertheless.
        sequence.last_step = self._step + max(1, sequence.tokens)
        self._running[sequence.last_step].add(sequence)
        self._moving += 1
