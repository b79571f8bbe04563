"""What could not be read: to be looked at, tried again or dropped by a person. Nothing in here is ever executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from wire.codec import decode_batch, decode_question
from wire.errors import MalformedMessageError, UsageError
from wire.keys import Keys, queue_member
from wire.messages import Question
from wire.question_state import ask_states, read_states

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
        size: How many they were.
        aside: Key under which the content of a whole key is now, or empty.
    """

    letter_id: str
    reason: str
    where: str
    batch: str
    data: bytes
    size: int
    aside: str = ""

    def as_dict(self, *, with_data: bool = False) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": self.letter_id,
            "reason": self.reason,
            "where": self.where,
            "batch": self.batch,
            "bytes": self.size,
        }
        if self.aside:
            fields["aside"] = self.aside
        return {**fields, "data": self.data.decode("utf-8", "backslashreplace")} if with_data else fields

    def as_line(self) -> str:
        # What a stranger wrote may hold terminal codes.
        what = f"now {self.aside!a}" if self.aside else f"{self.size} bytes"
        return f"{self.letter_id}  {what} from {self.where!a}: {self.reason[:SHOWN_CHARS]!a}"


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
        except redis.ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise
            entries = []
        if not entries:
            which = f"no dead letter {letter_id!r}" if letter_id else "which one? give its ID"
            raise UsageError(f"{which}; `batchfleet dead list` shows them")
        return _letter(*entries[0])

    def retry(self, letter_id: str | None) -> int:
        """Queue again what can be read by now, for instance after an upgrade.

        A question, or those of a whole batch that have no record.

        Returns:
            How many questions were queued.

        Raises:
            UsageError: It still cannot be read, or has a record, or nobody waits for it.
        """
        letter = self.get(letter_id)
        if letter.aside:
            raise UsageError(
                f"dead letter {letter.letter_id} is a whole key, now {letter.aside!a}, and cannot be retried; look at "
                "it with redis-cli, or drop it"
            )
        if len(letter.data) < letter.size:
            words = f"was cut from {letter.size} to {len(letter.data)} bytes (limits.max_dead_letter_bytes)"
            raise UsageError(
                f"dead letter {letter.letter_id} {words}; `batchfleet forget RUN` and the command that submitted its "
                "run ask it again"
            )
        waiting = self._without_record(letter, _questions(letter))
        with self._client.pipeline(transaction=True) as pipe:
            for encoded, question in waiting:
                pipe.sadd(self._keys.queues, queue_member(question.model, question.priority))
                pipe.xadd(self._keys.questions(question.model, question.priority), {"q": encoded, "r": question.run})
                pipe.xadd(self._keys.wake, {"queue": question.model}, maxlen=1000)
            pipe.xdel(self._keys.dead, letter.letter_id)
            pipe.execute()
        return len(waiting)

    def drop(self, letter_id: str | None) -> None:
        """Forget a letter, and the content of the key that it tells of."""
        letter = self.get(letter_id)
        if letter.aside.startswith(self._keys.aside("")):
            self._client.unlink(letter.aside)
        self._client.xdel(self._keys.dead, letter.letter_id)

    def _without_record(
        self, letter: DeadLetter, questions: Sequence[tuple[bytes, Question]]
    ) -> list[tuple[bytes, Question]]:
        with self._client.pipeline(transaction=False) as pipe:
            ask_states(pipe, self._keys, alone := [question for _, question in questions])
            states = read_states(alone, pipe.execute())
        waiting = [
            question
            for question, state in zip(questions, states, strict=True)
            if state.is_accepted and not state.is_done
        ]
        if not waiting:
            ended = (
                "has its record already"
                if any(state.is_done for state in states)
                else "belongs to no run that waits for it"
            )
            raise UsageError(
                f"dead letter {letter.letter_id} {ended}; drop it, and ask the question in a run of its own"
            )
        return waiting

    def _range(self, first: str, last: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        found: Any = self._client.xrange(self._keys.dead, first, last, count=count)
        return list(found)


def _questions(letter: DeadLetter) -> list[tuple[bytes, Question]]:
    """What a letter holds: one question, or a batch of them."""
    try:
        return [(letter.data, decode_question(letter.data))]
    except MalformedMessageError as error:
        reason = error
    try:
        return [(encoded, decode_question(encoded)) for encoded in decode_batch(letter.data)]
    except MalformedMessageError as error:
        # A batch job is an array, a question a map; say what is wrong with what it is nearer to.
        said = error if letter.batch and "map was expected" in str(reason) else reason
        raise UsageError(f"dead letter {letter.letter_id} still cannot be read: {said}") from None


def _letter(letter_id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "backslashreplace")

    data = fields.get(b"data", b"")
    size = text(b"bytes")
    known = int(size) if size.isascii() and size.isdigit() and len(size) < len("1000000000000") else len(data)
    return DeadLetter(letter_id.decode(), text(b"reason"), text(b"where"), text(b"batch"), data, known, text(b"aside"))
