"""Stands in for vLLM, with its shape: continuous batching on a step clock. It computes nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import math
import os
import signal
from collections import defaultdict, deque
from dataclasses import dataclass

from pydantic import JsonValue

from gpu_worker.engines.engine import READY, Completion, Outcome, Refusal, Vectors, packed
from gpu_worker.engines.sampling_params import configured_params, effective_params, vector_params
from gpu_worker.images.header import header_of
from wire.errors import EngineDeadError
from wire.messages import JsonObject, Question, Usage
from wire.parameters import names_of

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
NOTHING_TO_A_MODEL = names_of("bookkeeping")
DIMENSIONS = 8
"""Of an embedding, unless a question says otherwise."""
LABELS = ("no", "yes")
"""Of the classes of texts."""


@dataclass(frozen=True, slots=True)
class StubOptions:
    """The stub's shape and faults.

    Attributes:
        model: Name under which questions are addressed to it.
        max_num_seqs: Most sequences at once; more wait, in order of arrival.
        step_s: Time of one decode step, in seconds, in which every running sequence gains one token; 0: answers cost
            nothing.
        boot_s: How long it takes to boot, in seconds.
        min_tokens, max_tokens: Lengths vary by question between these, both included.
        sampling_defaults: As for a real engine; recorded with every answer.
        refuse_on: Substring of prompts that are refused; None for never.
        crash_on: Substring of prompts that kill the process.
        hang_on: Substring of prompts whose answer never ends, and makes no progress; what runs beside it continues.
    """

    model: str = "stub"
    max_num_seqs: int = 64
    step_s: float = 0.0
    boot_s: float = 0.0
    min_tokens: int = 8
    max_tokens: int = 128
    sampling_defaults: JsonObject | None = None
    refuse_on: str | None = None
    crash_on: str | None = None
    hang_on: str | None = None


def _numbers(text: str, count: int) -> list[float]:
    """Between -1 and 1, and not all 0."""
    data = hashlib.shake_128(text.encode()).digest(count)
    return [(byte - 127.25) / 128 for byte in data]


def _seen(question: Question) -> tuple[str, list[str]]:
    """The words of a question, and the size of each of its images, which stands among the words in place of it."""
    text, sizes = question.text, []
    for message in question.messages or ():
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            named = part.get("image_url") if isinstance(part, dict) else None
            url = named.get("url") if isinstance(named, dict) else None
            if isinstance(url, str) and url.startswith("data:image/"):
                header = header_of(base64.b64decode(url.partition(",")[2]))
                sizes.append(f"{header.width}x{header.height}")
                text = text.replace(url, sizes[-1])
    return text, sizes


def _tool_call(params: JsonObject) -> JsonObject | None:
    """Of the tool that has to be called, without arguments; None if none has to."""
    choice, tools = params.get("tool_choice"), params.get("tools")
    named = choice.get("function") if isinstance(choice, dict) else None
    if choice == "required" and isinstance(tools, list) and tools and isinstance(tools[0], dict):
        named = tools[0].get("function")
    if not isinstance(named, dict):
        return None
    return {"id": "call_0", "type": "function", "function": {"name": named.get("name"), "arguments": "{}"}}


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

    def prepare(self) -> None:
        """There is nothing that takes long."""

    async def start(self) -> None:
        await asyncio.sleep(self._options.boot_s)
        if self._options.step_s > 0:
            self._stepping = asyncio.create_task(self._step_for_ever())

    async def answer(self, question: Question) -> Outcome:
        if self._dead:
            raise EngineDeadError("the stub engine was stopped")
        text, images = _seen(question)
        refusal = self._fault(text)
        if refusal is not None:
            return refusal
        if question.inputs is not None:
            return await self._vectors(question)
        params = effective_params(question.params, self._defaults, chat=question.messages is not None)
        if isinstance(params, Refusal):
            return params
        params = {name: value for name, value in params.items() if name not in NOTHING_TO_A_MODEL}
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
        call = _tool_call(params) if "tools" in params else None
        if call is not None:
            return Completion([""], "tool_calls", usage, params, tool_calls=[[call]])
        text = " ".join([*images, *loop[start : start + tokens]])
        reasoning = [f"Hm: {text[::-1]}"] if params.get("reasoning_effort", "none") != "none" else []
        return Completion([text], finish_reason, usage, params, reasoning=reasoning)

    def progress(self) -> int:
        return self._progress

    def check(self) -> None:
        if self._dead:
            raise EngineDeadError("the stub engine was stopped")

    async def stop(self) -> None:
        self._dead = True
        if self._stepping is not None:
            self._stepping.cancel()

    async def _vectors(self, question: Question) -> Vectors | Refusal:
        """Numbers that depend on each text alone; embeddings of length 1. All texts take one step together."""
        params = vector_params(question)
        if isinstance(params, Refusal):
            return params
        await self._run(1)
        inputs = list(map(str, question.inputs or ()))
        usage = Usage(prompt_tokens=sum(max(1, len(text) // 4) for text in inputs), completion_tokens=0)
        if question.task == "score":
            scores = [_numbers(f"{question.query}\0{text}", 1)[0] / 2 + 0.5 for text in inputs]
            return Vectors([packed(scores)], usage, params)
        if question.task == "classify":
            found = [[number + 1 for number in _numbers(text, len(LABELS))] for text in inputs]
            labels: list[JsonValue] = [LABELS[one.index(max(one))] for one in found]
            shares = [packed(number / sum(one) for number in one) for one in found]
            return Vectors(shares, usage, params, {"labels": labels})
        dimensions = params.get("dimensions", DIMENSIONS)
        found = [_numbers(text, dimensions if isinstance(dimensions, int) else DIMENSIONS) for text in inputs]
        lengths = [math.hypot(*one) for one in found]
        units = [packed([number / length for number in one]) for one, length in zip(found, lengths, strict=True)]
        return Vectors(units, usage, params)

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
