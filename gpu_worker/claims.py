"""Takes batches from RQ's queue and gives them back. What comes from Redis is trusted only once it is decoded."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import redis.asyncio
import redis.exceptions

from gpu_worker.options import WorkerOptions
from wire.address import BLOCK_S
from wire.codec import decode_batch, decode_question, identify_question
from wire.errors import MalformedMessageError, NewerMessageError
from wire.failures import error_of
from wire.keys import DEAD_LETTER_TTL_S, RQ_JOB_PREFIX, SUSPECT_AFTER_DEATHS, Keys
from wire.messages import WIRE_VERSION, Answer, Failure, Question
from wire.question_state import ask_states, read_states
from wire.scripts import load_script

log = logging.getLogger(__name__)

MOST_BATCHES_AT_ONCE = 64
FULL_S = 0.1
"""How often a worker looks for batches in a Redis that is full, and does not let it wait for them."""
DEAD_LETTER_BYTES = 64 * 1024
"""To this size a dead letter is cut once `max_dead_letter_bytes` are kept whole."""


@dataclass(eq=False, slots=True)
class HeldBatch:
    """A batch that this worker has a lease on.

    Attributes:
        batch_id: RQ's job id.
        token: Proves the lease; a batch that lapsed and came back has a new one.
        attempts: How many workers it was given to, this one included.
        questions: Those that have no terminal record yet, each with the size of its encoding in bytes.
        unreadable: Failures of those that cannot be read but whose place in their run can, each with the same size.
        newer: The wire version that the rest of the batch needs, which goes to a worker that speaks it; 0 if there is
            no rest.
        unfinished: How many of `questions` have no record so far.
        records: Those that were made, each with the size of its question, until the batch ends: Redis may lose what it
            was just told.
    """

    batch_id: str
    token: str
    attempts: int
    questions: list[tuple[Question, int]]
    newer: int = 0
    unreadable: Sequence[tuple[Failure, int]] = ()
    unfinished: int = field(init=False)
    records: list[tuple[Answer | Failure, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unfinished = len(self.questions)


class Intake:
    """One worker's way to the batch jobs of its model."""

    def __init__(
        self, client: redis.asyncio.Redis, keys: Keys, model: str, worker: str, options: WorkerOptions
    ) -> None:
        self._client = client
        self._keys = keys
        self._model = model
        self._worker = worker
        self._options = options
        self._queue = keys.rq_queue(model)
        self._leases = keys.leases(model)
        self._newer = keys.newer(model)
        self._claim = client.register_script(load_script("gpu_worker", "claim"))
        self._give_back = client.register_script(load_script("gpu_worker", "give_back"))
        self._dead_letter = client.register_script(load_script("gpu_worker", "dead_letter"))

    async def claim(self, room: int) -> list[HeldBatch]:
        """Take waiting batches until `room` questions are reached or passed.

        If there are none, tell the batcher that we are hungry. With a `room` of 0 or less: take one batch if there is a
        backlog, more of them than workers; otherwise leave them to who has room.
        """
        return await self._claim_from(self._queue, room, MOST_BATCHES_AT_ONCE, newer_up_to=WIRE_VERSION)

    async def claim_isolated(self) -> HeldBatch | None:
        """Take one batch that must be run with nothing beside it; None if there is none."""
        batches = await self._claim_from(self._keys.isolated(self._model), 1, 1, newer_up_to=0)
        return batches[0] if batches else None

    async def stop_isolating(self) -> None:
        """Go back to ordinary work."""
        await self._client.zrem(self._keys.isolating(self._model), self._worker)

    async def _claim_from(self, queue: str, room: int, most: int, *, newer_up_to: int) -> list[HeldBatch]:
        token = secrets.token_hex(8)
        lease_ms = int(self._options.lease_s * 1000)
        hunger_ms = int(BLOCK_S * 1250)
        claimed = await self._claim(
            keys=[
                queue,
                self._leases,
                self._keys.hungry(self._model),
                self._keys.wake,
                self._keys.workers,
                self._newer,
            ],
            args=[
                self._worker,
                token,
                lease_ms,
                room,
                most,
                RQ_JOB_PREFIX,
                hunger_ms,
                newer_up_to,
                self._options.max_batch_bytes,
            ],
        )
        batches = []
        for batch_id, attempts, data, recheck in claimed:
            batch = await self._open(
                batch_id.decode("utf-8", "replace"), token, int(attempts), data, recheck=bool(recheck)
            )
            if batch is not None:
                batches.append(batch)
        return batches

    async def wait(self) -> None:
        """Return when a batch waits, or after `BLOCK_S` seconds.

        Moving the queue's head onto itself blocks until there is one and takes nothing: whoever dies waiting strands
        nothing.
        """
        try:
            await self._client.blmove(self._queue, self._queue, BLOCK_S, "LEFT", "LEFT")  # type: ignore[arg-type]  # seconds may be fractions
        except redis.exceptions.OutOfMemoryError:
            # Redis takes it for something that takes memory. What waits may still be claimed.
            await asyncio.sleep(FULL_S)

    async def give_back(self, batch: HeldBatch, *, engine_died: bool) -> None:
        """Put an unfinished batch at the front of its queue.

        Those of its questions that have records are skipped by the next worker. If the engine died, the batch may be
        why, and that is written down.
        """
        keys = [
            self._leases,
            RQ_JOB_PREFIX + batch.batch_id,
            self._queue,
            self._keys.suspects(self._model),
            self._keys.isolated(self._model),
        ]
        args = [batch.batch_id, batch.token, SUSPECT_AFTER_DEATHS if engine_died else "", self._worker]
        if not await self._give_back(keys=keys, args=args):
            log.info("batch %s is somebody else's already", batch.batch_id, extra={"batch": batch.batch_id})

    async def _open(
        self, batch_id: str, token: str, attempts: int, data: bytes | int | None, *, recheck: bool
    ) -> HeldBatch | None:
        if data is None or isinstance(data, int):
            reason = (
                "no batch job of that id"
                if data is None
                else f"a batch of {data} bytes; {self._options.max_batch_bytes} are the most"
            )
            await self._bury(batch_id, reason, b"", whole_job=True)
            return None
        try:
            encoded = decode_batch(data)
        except NewerMessageError as error:
            log.warning("batch %s is for a newer worker: %s", batch_id, error)
            return HeldBatch(batch_id, token, attempts, [], error.version)
        except MalformedMessageError as error:
            await self._bury(batch_id, str(error), data, whole_job=True)
            return None
        questions, unreadable, newer = [], [], 0
        for one in encoded:
            try:
                questions.append((decode_question(one), len(one)))
            except NewerMessageError as error:
                newer = max(newer, error.version)
            except MalformedMessageError as error:
                await self._bury(batch_id, str(error), one, whole_job=False)
                unreadable += [(failure, len(one)) for failure in _unreadable(one, str(error), attempts)]
        if attempts > 1 or recheck:
            questions = await self._without_answered(questions)
        if newer:
            log.warning(
                "batch %s has questions of wire version %d, for a newer worker: this one speaks up to %d",
                batch_id,
                newer,
                WIRE_VERSION,
            )
        return HeldBatch(batch_id, token, attempts, questions, newer, unreadable)

    async def _without_answered(self, questions: list[tuple[Question, int]]) -> list[tuple[Question, int]]:
        async with self._client.pipeline(transaction=False) as pipe:
            ask_states(pipe, self._keys, alone := [question for question, _ in questions])
            states = read_states(alone, await pipe.execute())
        return [question for question, state in zip(questions, states, strict=True) if not state.is_done]

    async def _bury(self, batch_id: str, reason: str, data: bytes, *, whole_job: bool) -> None:
        log.error(
            "dead letter: %s (batch %a, %d bytes)",
            reason,
            batch_id,
            len(data),
            extra={"batch": batch_id, "model": self._model},
        )
        await self._dead_letter(
            keys=[self._keys.dead, RQ_JOB_PREFIX + batch_id, self._leases],
            args=[
                batch_id,
                reason,
                data,
                self._queue,
                self._options.max_dead_letters,
                DEAD_LETTER_TTL_S,
                "1" if whole_job else "0",
                self._options.max_dead_letter_bytes,
                DEAD_LETTER_BYTES,
            ],
        )


def _unreadable(data: bytes, reason: str, attempts: int) -> list[Failure]:
    """At most one failure, so that a run does not wait for ever for a question that nobody here can read."""
    known = identify_question(data)
    if known is None:
        return []
    error = error_of("unreadable", f"{reason}; its bytes are among the dead letters")
    return [Failure(**asdict(known), attempts=attempts, error=error)]
