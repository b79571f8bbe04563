"""Finds the question that kills its engine: suspects are divided and run alone until the culprit stands alone.

A batch whose workers died twice is suspect. All that one worker had when it died is suspected together, however many
batches it came in, and is cut into four; each part is run with nothing beside it. A part that is answered is innocent.
A part whose worker dies is cut again. A single question gets a failure with the evidence when its workers died
`DEATHS_BY_ITSELF` times while it was all that they had, and `DEATHS_ALONE` times since it was isolated.

One culprit among n questions in flight costs at most log2(n) + 2 deaths, for n of 8 and more: 6 for 64, where each part
answered runs as long as its longest answer. Halves would take as long and cost a death for each halving. A worker that
is killed from outside costs its questions a second try. To cost one of them its answer it would have to be killed at
least five times, each time with that question and an ever smaller part.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import redis

from batcher.handover import batch_id, job_fields
from batcher.leadership import Leadership
from batcher.maintenance.suspects import Suspect, admit, judge, seen_together
from wire.codec import decode_batch, decode_question, encode_record, whole_number
from wire.errors import MalformedMessageError, NewerMessageError
from wire.failures import brief, error_of
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import Failure, Question
from wire.question_state import ask_states, read_states
from wire.scripts import load_script

log = logging.getLogger(__name__)

SUSPECTS_PER_LOOK = 200
MOST_ISOLATED = 16
"""Parts of one model that wait to run alone: those of four workers that died with all that they held."""


class Quarantine:
    """Run by the leading batcher; every change is fenced by its lease."""

    def __init__(
        self, client: redis.Redis, keys: Keys, leadership: Leadership, *, max_bytes: int, run_ttl_s: float
    ) -> None:
        self._client = client
        self._keys = keys
        self._carry_out_judgement = leadership.fenced("batcher.maintenance", "judge")
        self._max_bytes = max_bytes
        self._run_ttl_s = int(run_ttl_s)
        self._publish = client.register_script(load_script("wire", "publish"))

    def judge_all(self, models: set[str]) -> None:
        """Divide or convict suspect batches as there is room; of each model, `SUSPECTS_PER_LOOK` are looked at.

        Raises:
            LeaseLostError: This batcher does not lead any more; the batch at hand was not changed.
        """
        names = sorted(models)
        with self._client.pipeline(transaction=False) as pipe:
            for model in names:
                pipe.lrange(self._keys.suspects(model), 0, SUSPECTS_PER_LOOK - 1)
                pipe.llen(self._keys.isolated(model))
            found = iter(pipe.execute())
        for model, (ids, isolated) in zip(names, zip(found, found, strict=True), strict=True):
            if ids:
                self._judge_model(model, ids, MOST_ISOLATED - isolated)

    def _judge_model(self, model: str, ids: Sequence[bytes], room: int) -> None:
        suspects, newer = self._look_up(ids)
        if newer:
            # To the end, so that those behind them are looked at.
            self._carry_out(model, "last", newer)
        groups, free = admit(seen_together(suspects, self._max_bytes), room)
        for group in groups:
            self._judge(model, group)
        if free:
            words = (
                "%d batches that workers died with run with others again: more than %d parts would have to run alone"
            )
            log.warning(words, len(free), MOST_ISOLATED, extra={"model": model})
            self._carry_out(model, "free", [suspect.batch_id for suspect in free])

    def _judge(self, model: str, group: Sequence[Suspect]) -> None:
        judgement = judge(group)
        if judgement.worst.convicted:
            # Before the batch is dropped: if this is cut short, the next leader convicts again, and the first record
            # wins.
            self._convict(judgement.worst)
        parts: list[Any] = []
        queue = self._keys.rq_queue_name(model)
        for part in judgement.parts:
            fields = job_fields([encoded for encoded, _ in part], queue, self._client, **judgement.history())
            parts += (batch_id(), len(fields), *fields)
        self._carry_out(model, "end", [suspect.batch_id for suspect in group], parts)
        if judgement.parts:
            sizes = ", ".join(str(len(part)) for part in judgement.parts)
            ids = {"batch": judgement.worst.batch_id.decode("utf-8", "replace"), "model": model}
            words = "%d workers died with the same questions, which now run alone in parts of %s"
            log.warning(words, judgement.worst.deaths, sizes, extra=ids)

    def _carry_out(self, model: str, what: str, ids: Sequence[bytes], parts: Sequence[Any] = ()) -> None:
        keys = self._keys
        lists = [keys.suspects(model), keys.isolated(model), keys.rq_queue(model)]
        self._carry_out_judgement(lists, [RQ_JOB_PREFIX, what, len(ids), *ids, *parts])

    def _look_up(self, ids: Sequence[bytes]) -> tuple[list[Suspect], list[bytes]]:
        """The batches of these ids, and the ids of those that are of a wire version to come, and not ours to judge.

        A batch is without questions if it is not there, or nothing of it can be read; then a worker has put it aside
        already.
        """
        with self._client.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hmget(_job(one), ["data", "attempts", "deaths", "alone", "in_company", "died"])
            # What a stranger put in the place of a job answers with an error of its own.
            found = pipe.execute(raise_on_error=False)
        readable: list[tuple[bytes, Sequence[bytes | None], list[tuple[bytes, Question]]]] = []
        newer = []
        for one, fields in zip(ids, found, strict=True):
            there = fields if isinstance(fields, list) else [None] * 6
            try:
                readable.append((one, there[1:], _questions(one, there[0])))
            except NewerMessageError as error:
                log.warning("suspect batch %s waits for a newer batcher: %s", one.decode("utf-8", "replace"), error)
                newer.append(one)
        asked = [question for _, _, questions in readable for _, question in questions]
        with self._client.pipeline(transaction=False) as pipe:
            ask_states(pipe, self._keys, asked)
            states = iter(read_states(asked, pipe.execute()))
        suspects = []
        for one, (attempts, deaths, alone, in_company, died), questions in readable:
            counts = [whole_number(count) for count in (attempts, deaths, alone, in_company)]
            workers = tuple((died or b"").decode("utf-8", "replace").split(","))
            suspects.append(
                Suspect(
                    one,
                    counts[0],
                    counts[1],
                    counts[2],
                    counts[3],
                    workers,
                    tuple(each for each in questions if not next(states).is_done),
                )
            )
        return suspects, newer

    def _convict(self, suspect: Suspect) -> None:
        for encoded, question in suspect.questions:
            ids = {"run": question.run, "request": question.request_id, "model": question.model}
            log.error(
                "question %s of run %s kills engines: %d workers died with it",
                question.request_id,
                question.run,
                suspect.deaths,
                extra=ids,
            )
            message = (
                f"{suspect.deaths} workers died with this question in flight, the last {suspect.alone} with nothing "
                "else of others beside it"
            )
            failure = Failure(
                run=question.run,
                epoch=question.epoch,
                index=question.index,
                request_id=question.request_id,
                attempts=suspect.attempts,
                metadata=question.metadata,
                error=error_of(
                    "engine_killed",
                    message,
                    {"deaths": suspect.deaths, "deaths_alone": suspect.alone, "workers": list(suspect.died)},
                ),
                v=question.v,
            )
            keys, run = self._keys, question.run
            self._publish(
                keys=[keys.run(run), keys.done(run), keys.records(run), keys.pending, keys.runs],
                args=[
                    run,
                    self._run_ttl_s,
                    question.epoch,
                    question.index,
                    brief(failure),
                    len(encoded),
                    encode_record(failure),
                ],
            )


def _job(batch_id: bytes) -> str:
    return RQ_JOB_PREFIX + batch_id.decode("utf-8", "replace")


def _questions(batch: bytes, data: bytes | None) -> list[tuple[bytes, Question]]:
    """What can be read of a batch, with its encoding.

    Raises:
        NewerMessageError: Some of it is of a wire version to come.
    """
    try:
        encoded_questions = decode_batch(data or b"")
    except NewerMessageError:
        raise
    except MalformedMessageError as error:
        log.warning("suspect batch %a: %s", batch, error)
        return []
    return [(encoded, question) for encoded in encoded_questions if (question := _decoded(encoded))]


def _decoded(encoded: bytes) -> Question | None:
    try:
        return decode_question(encoded)
    except NewerMessageError:
        raise
    except MalformedMessageError:
        # The workers that had this batch have put it aside, each of them.
        return None
