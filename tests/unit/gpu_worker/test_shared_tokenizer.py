"""Texts that are asked in the same moment are tokenized together, and none of them pays for another."""

from __future__ import annotations

import asyncio
from typing import Any

from gpu_worker.engines.vllm.shared_tokenizer import AT_ONCE, SharedTokenizer


class Lengths:
    """A tokenizer with one token a text: its length. It fails on `bad`, with all that is asked beside it."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:  # noqa: ANN401 (Hugging Face's)
        self.calls.append(len(texts))
        if "bad" in texts:
            raise ValueError(texts)
        return {"input_ids": [[len(text)] for text in texts]}


async def test_questions_of_a_moment_share_calls() -> None:
    """As many as may hold up the event loop; each gets its own, in its order; one that was cancelled is left out."""
    tokenizer = Lengths()
    shared = SharedTokenizer(tokenizer, adds_special_tokens=True)
    tasks = [asyncio.create_task(shared.token_ids(["x" * number, ""])) for number in range(AT_ONCE + 1)]
    await asyncio.sleep(0)
    tasks[0].cancel()

    found = await asyncio.gather(*tasks[1:])

    assert found == [[[number], [0]] for number in range(1, AT_ONCE + 1)]
    assert tokenizer.calls == [2 * AT_ONCE, 2]


async def test_a_text_that_cannot_be_tokenized_fails_alone() -> None:
    """Its neighbours are tokenized by themselves then."""
    shared = SharedTokenizer(Lengths(), adds_special_tokens=True)

    found = await asyncio.gather(*(shared.token_ids([text]) for text in ("a", "bad", "abc")), return_exceptions=True)

    assert [found[0], found[2]] == [[[1]], [[3]]]
    assert isinstance(found[1], ValueError)
