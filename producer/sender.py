"""Sends a run's questions in order.

A cursor in Redis says how far it got, so that nothing is accepted twice, whoever resumes.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from producer.claim_token import describe, has_ended, new_token
from producer.options import ProducerOptions
from producer.questions.question_parser import Invalid, ParsedQuestion
from wire.clock import ServerClock
from wire.codec import damaged_run, encode_question, encode_record, run_counts
from wire.errors import UsageError
from wire.failures import error_of
from wire.keys import Keys, queue_member
from wire.messages import EPOCH, Failure, Question
from wire.redis_errors import is_full
from wire.scripts import load_script

CHUNK_QUESTIONS = 256
CHUNK_BYTES = 1024 * 1024
"""Bounds of one submission: a script keeps Redis to itself while it runs."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What Redis knows of a run.

    Attributes:
        cursor: Questions before this position were accepted, or skipped because their answers were on disk.
        mark: What `Sender.send` was given as mark of the questions before the cursor; empty where it was given none.
        epoch: Tells it from an earlier run of the same id.
    """

    cursor: int
    accepted: int
    answered: int
    failed: int
    acknowledged: int
    cancelled: bool
    mark: str = ""
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one submission.

    Attributes:
        outcome: `ok`; `window`, `pending`, `share`, `memory` (no room now: try later, or with fewer questions where it
            is Redis' memory); `cursor`, `gone` (Redis knows less or more than we thought: open again); `cancelled`.
        detail: For people, where there is no room.
    """

    outcome: str
    detail: str = ""


class RunBusyError(UsageError):
    """Another producer collects this run."""


class Sender:
    """One producer's way to put the questions of one run into Redis.

    Attributes:
        token: Names this producer.
        epoch: That of the run, from when it was opened.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        run: str,
        fingerprint: dict[str, str],
        questions: int,
        options: ProducerOptions,
    ) -> None:
        self._client = client
        self._keys = keys
        self._run = run
        self._fingerprint = fingerprint
        self._questions = questions
        self._options = options
        self._open = client.register_script(load_script("producer", "open_run"))
        self._submit = client.register_script(load_script("producer", "submit"))
        self._end = client.register_script(load_script("producer", "end_run"))
        self.token = new_token()
        self.epoch = ""
        self.clock = ServerClock()

    def open(self) -> RunState:
        """Open the run, or find it again.

        Raises:
            RunBusyError: Another living producer collects it.
            UsageError: The run id exists with other questions, another model or other parameters.
        """
        reply = self._try_open("")
        if reply[0] == b"busy" and has_ended(reply[1].decode("utf-8", "replace")):
            reply = self._try_open(reply[1])
        if reply[0] == b"busy":
            raise RunBusyError(f"run {self._run} is being collected by {describe(reply[1].decode('utf-8', 'replace'))}")
        if reply[0] == b"differs":
            raise UsageError(_difference(self._run, _fingerprint(reply[1]), self._fingerprint))
        counts = run_counts(self._run, reply[1:9])
        mark, epoch = (part.decode("utf-8", "replace") for part in reply[9:11])
        if not re.fullmatch(EPOCH, epoch):
            raise damaged_run(self._run)
        self.epoch = epoch
        self.clock.learn(counts[6] + counts[7] / 1e6)
        cursor, accepted, answered, failed, acknowledged, cancelled = counts[:6]
        return RunState(
            cursor, accepted, answered, failed, acknowledged, cancelled=bool(cancelled), mark=mark, epoch=epoch
        )

    def send(
        self, cursor: int, until: int, chunk: Sequence[ParsedQuestion | Invalid], default_model: str, mark: str = ""
    ) -> Sent:
        """Offer the questions of positions `cursor` to `until` (exclusive).

        Positions without a question in `chunk` are skipped. All are accepted, or none. With them goes a mark, which
        tells the questions before `until` from any others; `open` brings it back.

        Raises:
            UsageError: The questions name more models than the fleet allows.
        """
        streams: dict[tuple[str, int], int] = {}
        per_question: list[bytes | int | str] = []
        for asked in chunk:
            packed = self._packed(asked, default_model)
            if isinstance(packed, Invalid):
                per_question += (0, packed.index, encode_record(self._failure(packed)), "")
            else:
                question, data = packed
                stream = streams.setdefault((question.model, question.priority), len(streams) + 1)
                per_question += (
                    stream,
                    question.index,
                    data,
                    "" if question.deadline is None else repr(question.deadline),
                )
        keys, run, options = self._keys, self._run, self._options
        bounds: list[str | int] = [
            run,
            cursor,
            until,
            int(options.run_ttl_s),
            options.max_pending_questions,
            options.max_pending_bytes,
        ]
        bounds += [options.run_window, options.max_models, mark, self.epoch]
        of_fleet = [keys.pending, keys.runs, keys.queues, keys.wake, keys.refused, keys.expiring]
        of_run = [keys.run(run), keys.accepted(run), keys.done(run), keys.records(run)]
        try:
            reply = self._submit(
                keys=[*of_run, *of_fleet, *(keys.questions(*stream) for stream in streams)],
                args=[*bounds, len(streams), *(queue_member(*stream) for stream in streams), *per_question],
            )
        except redis.ResponseError as error:
            if not is_full(error):
                raise
            # Not a reason to stop collecting: what is taken off makes room.
            return Sent(
                "memory",
                "waits for room: Redis is out of memory; raise its maxmemory or lower limits.max_pending_bytes",
            )
        return self._understood(reply)

    def end(self, questions: int) -> None:
        """Say how many questions a run has, whose number was not known when it was opened."""
        self._end(keys=[self._keys.run(self._run)], args=[questions, self.epoch])

    def _understood(self, reply: list[bytes | int]) -> Sent:
        outcome = reply[0].decode() if isinstance(reply[0], bytes) else ""
        if outcome == "queues":
            msg = (
                f"these questions would add to {reply[1]!r} queues; limits.max_models = {self._options.max_models} is "
                "the most. "
            )
            msg += "Raise it, or wait: a queue that has been empty for an hour no longer counts"
            raise UsageError(msg)
        if outcome == "window":
            return Sent(
                outcome,
                (
                    f"{self._options.run_window} questions of this run are unanswered or not yet on disk "
                    "(limits.run_window)"
                ),
            )
        if outcome == "pending":
            most = f"{self._options.max_pending_questions} questions and {self._options.max_pending_bytes // 1024} KiB"
            what = f"waits for room in the fleet: {reply[1]!r} questions, {int(reply[2]) // 1024} KiB are pending"
            return Sent(outcome, f"{what} of at most {most} (limits.max_pending_questions, _bytes)")
        if outcome == "share":
            mine = f"{reply[1]!r} questions of this run are pending, which is its share"
            return Sent(outcome, f"waits for room in the fleet: {mine} while other runs wait ({reply[2]!r})")
        return Sent(outcome)

    def _packed(self, asked: ParsedQuestion | Invalid, default_model: str) -> tuple[Question, bytes] | Invalid:
        """A question as it travels. A template, or numbers, may have made it much larger than it stands in its file."""
        if isinstance(asked, Invalid):
            return asked
        question = self._question(asked, default_model)
        data = encode_question(question)
        most = self._options.max_packed_bytes
        if len(data) <= most:
            return question, data
        reason = (
            f"packed, it is {len(data)} bytes long, and at most {most} are carried; shorten it, or raise "
            "limits.max_question_bytes everywhere"
        )
        return Invalid(asked.index, asked.line, asked.request_id, reason, asked.file)

    def _question(self, asked: ParsedQuestion, default_model: str) -> Question:
        now = self.clock.now()
        return Question(
            run=self._run,
            epoch=self.epoch,
            index=asked.index,
            request_id=asked.request_id,
            model=asked.model or default_model,
            prompt=asked.prompt,
            messages=asked.messages,
            task=asked.task,
            inputs=asked.inputs,
            query=asked.query,
            params={**self._options.sampling, **asked.params}
            if self._options.sampling and asked.inputs is None
            else asked.params,
            priority=self._options.priority if asked.priority is None else asked.priority,
            deadline=now + asked.deadline_s if asked.deadline_s is not None else None,
            metadata=asked.metadata,
            submitted_at=now,
        )

    def _failure(self, invalid: Invalid) -> Failure:
        error = error_of("invalid_question", f"line {invalid.line}: {invalid.reason}")
        return Failure(
            run=self._run, epoch=self.epoch, index=invalid.index, request_id=invalid.request_id, attempts=0, error=error
        )

    def _try_open(self, replaceable: str | bytes) -> list[bytes]:
        keys = [self._keys.run(self._run), self._keys.producer(self._run), self._keys.runs]
        fingerprint = json.dumps(self._fingerprint, sort_keys=True)
        lease_ms = int(1000 * self._options.lease_s)
        args: list[str | bytes | int] = [
            self._run,
            self.token,
            lease_ms,
            int(self._options.run_ttl_s),
            fingerprint,
            self._questions,
            replaceable,
        ]
        reply: list[bytes] = self._open(keys=keys, args=[*args, f"e{secrets.token_hex(6)}"])
        return reply


def _fingerprint(stored: bytes) -> dict[str, str]:
    """Empty if it cannot be read: then everything differs."""
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _difference(run: str, stored: dict[str, str], ours: dict[str, str]) -> str:
    parts = [
        f"{name} ({stored.get(name, 'none')} then, {ours.get(name, 'none')} now)"
        for name in ours
        if stored.get(name) != ours[name]
    ]
    return (
        f"run {run} exists and was made of something else; different: {', '.join(parts)}. Choose another run id, or "
        "give what it was made of"
    )
