"""What each row asks, in short: by it a row is known again in a file that has changed, wherever it stands there."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path

import orjson

from producer.atomic_file import write_beside
from producer.questions.question_parser import Invalid, ParsedQuestion, position_in
from producer.questions.samples import sample_of
from wire.errors import UsageError
from wire.messages import JsonObject

SUFFIX = ".rows"
_KEY_BYTES = 12
_NONE = bytes(_KEY_BYTES)
_HEAD_BYTES = 32
_MOST_WAITING = 64 * 1024
_BLOCK_KEYS = 512
"""Read at once: rows end about in their order."""
_MOST_BLOCKS = 64


def row_key(question: ParsedQuestion, model: str, sampling: JsonObject, template: str) -> bytes:
    """Equal for two questions exactly if the same is asked in the same way under the same id.

    An id that was derived does not count, for it tells the place; nor do priority, deadline and metadata. Samples of
    such a row are told apart by their seeds.

    Args:
        model: Of questions that name none.
        sampling: What is used where a question says nothing.
        template: Tells the chat template that is used from any others.
    """
    base, _ = sample_of(question.request_id) or (question.request_id, 0)
    own_id = question.request_id if position_in(base) is None else None
    params = {**sampling, **question.params}
    vectors = () if question.inputs is None else (question.task, question.inputs, question.query)
    content = (own_id, question.prompt, question.messages, question.model or model, params, template, *vectors)
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=_KEY_BYTES).digest()


class RowKeys:
    """The keys of all rows of a run, by index, in a file, which is closed when nobody has them any more.

    Args:
        file: Descriptor of it; they are behind `skipped` bytes.
    """

    def __init__(self, file: int, skipped: int = 0) -> None:
        self._file = file
        self._skipped = skipped
        self._waiting = bytearray()
        self._block = lru_cache(_MOST_BLOCKS)(partial(_block, file, skipped))
        weakref.finalize(self, os.close, file)

    @classmethod
    def new(cls) -> RowKeys:
        """None yet; they go to a file of TMPDIR that has no name."""
        with tempfile.TemporaryFile(prefix="batchfleet-rows-") as file:
            return cls(os.dup(file.fileno()))

    @classmethod
    def saved(cls, answers: Path, fingerprint: Mapping[str, str]) -> RowKeys | None:
        """Those that `save` has put beside the answers of a run; None if there are none, or they are another run's."""
        try:
            keys = cls(os.open(f"{answers}{SUFFIX}", os.O_RDONLY | os.O_CLOEXEC), _HEAD_BYTES)
        except OSError:
            return None
        return keys if os.pread(keys._file, _HEAD_BYTES, 0) == _head(fingerprint) else None

    def add(self, key: bytes | None) -> None:
        """That of the next row; None for a row that cannot be asked."""
        self._waiting += key or _NONE
        if len(self._waiting) > _MOST_WAITING:
            self.flush()

    def of(self, index: int) -> str | None:
        """That of a row, in hexadecimal digits; None if it has none. To be asked once all were added."""
        start = _KEY_BYTES * (index % _BLOCK_KEYS)
        key = self._block(index // _BLOCK_KEYS)[start : start + _KEY_BYTES]
        return None if key in (_NONE, b"") else key.hex()

    def flush(self) -> None:
        """All were added.

        Raises:
            UsageError: There is no room for them.
        """
        try:
            while self._waiting:
                del self._waiting[: os.write(self._file, self._waiting)]
        except OSError as error:
            raise UsageError(
                f"cannot store row keys in a temporary file ({error.strerror}); free some space, or set TMPDIR"
            ) from None

    def save(self, answers: Path, fingerprint: Mapping[str, str]) -> None:
        """Keep them beside the answers: a question that is on its way must be known again when its file has changed.

        Raises:
            OSError: The disk is full, or fails.
        """
        if RowKeys.saved(answers, fingerprint) is None:
            path = answers.with_name(answers.name + SUFFIX)
            write_beside(path, itertools.chain([_head(fingerprint)], self._pieces()), 0o644).replace(path)

    def _pieces(self) -> Iterator[bytes]:
        start = self._skipped
        while piece := os.pread(self._file, _MOST_WAITING, start):
            yield piece
            start += len(piece)


class KeyTaker:
    """Takes the keys while questions are read."""

    def __init__(self, keys: RowKeys, model: str, sampling: JsonObject, template: str) -> None:
        self._keys = keys
        self._how = (model, sampling, template)

    def __call__(self, question: ParsedQuestion | Invalid) -> None:
        self._keys.add(None if isinstance(question, Invalid) else row_key(question, *self._how))


def _block(file: int, skipped: int, number: int) -> bytes:
    size = _KEY_BYTES * _BLOCK_KEYS
    return os.pread(file, size, skipped + size * number)


def _head(fingerprint: Mapping[str, str]) -> bytes:
    return blake2b(json.dumps(dict(fingerprint), sort_keys=True).encode(), digest_size=_HEAD_BYTES).digest()
