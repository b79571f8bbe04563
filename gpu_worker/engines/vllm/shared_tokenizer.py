"""Tokenizes together what is asked in the same moment: by itself, each short text costs twice as much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

AT_ONCE = 64
"""Questions; the event loop has to wait for them."""


class SharedTokenizer:
    """Texts -> token ids, none cut off.

    Args:
        tokenizer: vLLM's, whatever it is made of.
        adds_special_tokens: Whether those that begin or end a text are added.
    """

    def __init__(self, tokenizer: Any, *, adds_special_tokens: bool) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer
        self._adds_special_tokens = adds_special_tokens
        self._waiting: list[tuple[Sequence[str], asyncio.Future[list[list[int]]]]] = []

    async def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Those of each text."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # By then, the other questions of the batch wait as well.
            loop.call_soon(self._tokenize)
        future: asyncio.Future[list[list[int]]] = loop.create_future()
        self._waiting.append((texts, future))
        return await future

    def _tokenize(self) -> None:
        asked, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._tokenize)
        try:
            found = iter(self._ids([text for texts, _ in asked for text in texts]))
            each = [[next(found) for _ in texts] for texts, _ in asked]
        except Exception:  # noqa: BLE001 (whatever a tokenizer raises)
            self._one_by_one(asked)
            return
        for (_, future), ids in zip(asked, each, strict=True):
            if not future.done():
                future.set_result(ids)

    def _one_by_one(self, asked: Sequence[tuple[Sequence[str], asyncio.Future[list[list[int]]]]]) -> None:
        """One of them made the tokenizer fail: only that one hears of it."""
        for texts, future in asked:
            if future.done():
                continue
            try:
                future.set_result(self._ids(texts))
            except Exception as error:  # noqa: BLE001 (whatever a tokenizer raises)
                future.set_exception(error)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(list(texts), truncation=False, add_special_tokens=self._adds_special_tokens)
        ids: list[list[int]] = found["input_ids"]
        return ids
