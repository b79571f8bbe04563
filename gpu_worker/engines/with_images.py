"""An engine that is given images where its questions name them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from gpu_worker.engines.engine import Engine, EngineState, Outcome, Refusal
from gpu_worker.images.options import ImageOptions
from gpu_worker.images.resolver import Resolver
from wire.messages import JsonObject, Question

SAFE_TYPES = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "tool_reference", "image_url"})
"""Parts of messages for which vLLM in this process fetches and unpacks nothing by itself."""


class WithImages:
    """Gets the images of a question, and then asks the engine within."""

    def __init__(self, engine: Engine, options: ImageOptions) -> None:
        self.kind, self.model, self.max_num_seqs = engine.kind, engine.model, engine.max_num_seqs
        self._engine = engine
        self._images = Resolver(options)

    @property
    def state(self) -> EngineState:
        return self._engine.state

    def prepare(self) -> None:
        self._engine.prepare()

    async def start(self) -> None:
        await self._engine.start()
        # Of vLLM known only now.
        self.max_num_seqs = self._engine.max_num_seqs

    def answer(self, question: Question) -> Coroutine[Any, Any, Outcome]:
        if question.messages is not None and any(isinstance(one.get("content"), list) for one in question.messages):
            return self._with_images(question, question.messages)
        # Not a coroutine more for what has none.
        return self._engine.answer(question)

    async def _with_images(self, question: Question, messages: list[JsonObject]) -> Outcome:
        if self.kind == "vllm" and (refusal := _unsafe(messages)) is not None:
            return refusal
        async with self._images.resolved(messages) as resolved:
            if isinstance(resolved, Refusal):
                return resolved
            return await self._engine.answer(replace(question, messages=resolved))

    def progress(self) -> int:
        return self._engine.progress() + self._images.progress()

    def check(self) -> None:
        self._engine.check()

    async def stop(self) -> None:
        await self._engine.stop()
        await self._images.close()


def _unsafe(messages: list[JsonObject]) -> Refusal | None:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            # By a `uuid`, vLLM takes a part for whatever else is in it.
            if isinstance(part, dict) and (part.get("type") not in SAFE_TYPES or "uuid" in part):
                told = str(part.get("type"))[:40]
                return Refusal("unsupported", f"content parts of type {told!r} are not taken: texts and image_url are")
    return None
