"""Questions in a real Redis without a producer's process.

They are for tests that need many of them, or need them at a certain moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from producer.options import ProducerOptions
from producer.questions.question_parser import ParsedQuestion
from producer.sender import CHUNK_QUESTIONS, Sender, Sent
from wire.codec import decode_record
from wire.keys import Keys
from wire.messages import Answer, Failure

KEYS = Keys()
ROOMY = ProducerOptions(run_window=1_000_000, max_pending_questions=1_000_000, max_pending_bytes=1 << 30)


class Submitter:
    """Submits the questions of one run to the stub and writes no file. Its questions have the ids `RUN-NUMBER`."""

    def __init__(self, client: redis.Redis, run: str, questions: int, options: ProducerOptions = ROOMY) -> None:
        self._client = client
        self._run = run
        self._sender = Sender(client, KEYS, run, {"questions": run}, questions, options)
        self._sender.open()
        self.sent = 0

    def offer(self, count: int, *, priority: int = 0, deadlines_s: Sequence[float | None] = ()) -> Sent:
        """Offer the next questions once, all or none."""
        asked = [
            ParsedQuestion(
                number,
                number + 1,
                f"{self._run}-{number}",
                f"What is {number}?",
                None,
                None,
                {},
                priority,
                deadline_s,
                None,
            )
            for number, deadline_s in zip(
                range(self.sent, self.sent + count), deadlines_s or [None] * count, strict=True
            )
        ]
        sent = self._sender.send(self.sent, self.sent + count, asked, "stub")
        self.sent += count * (sent.outcome == "ok")
        return sent

    def records(self) -> list[Answer | Failure]:
        """What has come of them so far, oldest first; nothing of it is acknowledged."""
        entries: Any = self._client.xrange(KEYS.records(self._run))
        return [decode_record(fields[b"a"]) for _, fields in entries]


def accept(client: redis.Redis, run: str, deadlines_s: Sequence[float | None], *, priority: int = 0) -> Submitter:
    """Have a whole run accepted, with these deadlines in seconds from now."""
    submitter = Submitter(client, run, len(deadlines_s))
    for start in range(0, len(deadlines_s), CHUNK_QUESTIONS):
        chunk = deadlines_s[start : start + CHUNK_QUESTIONS]
        assert submitter.offer(len(chunk), priority=priority, deadlines_s=chunk).outcome == "ok"
    return submitter


def answered(client: redis.Redis, run: str) -> int:
    """How many questions of a run have an answer."""
    return int(client.hget(f"batchfleet:run:{run}", "answered") or 0)
