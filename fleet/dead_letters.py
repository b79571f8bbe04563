"""What could not be read: to be looked at, tried again or dropped by a person. Nothing in here is ever executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from wire.codec import decode_question
from wire.errors import MalformedMessageError, UsageError
from wire.keys import Keys, queue_member

SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        letter_id: Names it in the commands.
        reason: Why it could not be read.
        where: Key in which it was found.
        batch: Batch job that it was in, or empty.
        data: The bytes, up to a bound.
    """

    letter_id: str
    reason: str
    where: str
    batch: str
    data: bytes

    def as_dict(self, *, with_data: bool = False) -> dict[str, Any]:
        fields: dict[str, Any] = {"id": self.letter_id, "reason": self.reason, "where": self.where, "batch": self.batch, "bytes": len(self.data)}
        return {**fields, "data": self.data.decode("utf-8", "backslashreplace")} if with_data else fields

    def as_line(self) -> str:
        # What a stranger wrote may hold terminal codes.
        return f"{self.letter_id}  {len(self.data)} bytes from {self.where!a}: {self.reason[:SHOWN_CHARS]!a}"


class DeadLetters:
    """The dead letters of one fleet."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def all(self) -> Iterator[DeadLetter]:
        """Oldest first, a few at a time."""
        start = "-"
        while entries := self._range(start, "+", 100):
            yield from (_letter(*entry) for entry in entries)
            start = f"({entries[-1][0].decode()}"

    def get(self, letter_id: str | None) -> DeadLetter:
        """Raises UsageError if there is none of that id."""
        try:
            entries = self._range(letter_id or "", letter_id or "", 1)
        except redis.ResponseError:
            entries = []
        if not entries:
            which = f"no dead letter {letter_id!r}" if letter_id else "which one? give its ID"
            msg = f"{which}; `batchfleet dead list` shows them"
            raise UsageError(msg)
        return _letter(*entries[0])

    def retry(self, letter_id: str | None) -> None:
        """Queue a question again that can be read by now, for instance after an upgrade.

        Raises:
            UsageError: It still cannot be read.
        """
        letter = self.get(letter_id)
        try:
            question = decode_question(letter.data)
        except MalformedMessageError as error:
            msg = f"dead letter {letter.letter_id} still cannot be read: {error}"
            raise UsageError(msg) from None
        with self._client.pipeline(transaction=True) as pipe:
            pipe.sadd(self._keys.queues, queue_member(question.model, question.priority))
            pipe.xadd(self._keys.questions(question.model, question.priority), {"q": letter.data, "r": question.run})
            pipe.xadd(self._keys.wake, {"queue": question.model}, maxlen=1000)
            pipe.xdel(self._keys.dead, letter.letter_id)
            pipe.execute()

    def drop(self, letter_id: str | None) -> None:
        self._client.xdel(self._keys.dead, self.get(letter_id).letter_id)

    def _range(self, first: str, last: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = self._client.xrange(self._keys.dead, first, last, count=count)
        return list(found)


def _letter(letter_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "backslashreplace")

    return DeadLetter(letter_id.decode(), text(b"reason"), text(b"where"), text(b"batch"), fields.get(b"data", b""))
