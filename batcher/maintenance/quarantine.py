"""Finds the question that kills its engine: suspects are divided and run alone until the culprit stands alone.

A batch whose workers died twice is suspect. All that one worker had when it died is suspected together, however many batches it came in, and is
cut into four; each part is run with nothing beside it. A part that is answered is innocent. A part whose worker dies is cut again. A single
question gets a failure with the evidence when its workers died `DEATHS_BY_ITSELF` times while it was all that they had, and `DEATHS_ALONE` times
since it was isolated.

One culprit among n questions in flight costs at most log2(n) + 2 deaths, for n of 8 and more: 6 for 64, where each part answered runs as long as
its longest answer. Halves would take as long and cost a death for each halving. A worker that is killed from outside costs its questions a second
try. To cost one of them its answer it would have to be killed at least five times, each time with that question and an ever smaller part.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.client import Pipeline

from batcher.handover import HandOver
from batcher.leadership import Leadership
from wire.codec import decode_batch, decode_question, encode_record, whole_number
from wire.errors import MalformedMessageError, NewerMessageError
from wire.failures import error_of
from wire.keys import RQ_JOB_PREFIX, Keys
from wire.messages import Failure, Question
from wire.question_state import ask_states, read_states
from wire.scripts import load_script

log = logging.getLogger(__name__)

PARTS = 4
DEATHS_BY_ITSELF = 2
DEATHS_ALONE = 3
AT_ONCE = 200

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A suspect batch as Redis has it.

    Attributes:
        attempts, deaths: How many workers it was given to, and how many of them died.
        alone: How many of them died while it was isolated, as part of a larger group or by itself.
        in_company: How many of those while it was part of a larger group.
        died: The workers that did, in order.
        questions: Those that have no record yet, with their encoding.
    """

    batch_id: bytes
    attempts: int
    deaths: int
    alone: int
    in_company: int
    died: tuple[str, ...]
    questions: tuple[tuple[bytes, Question], ...]

    @property
    def convicted(self) -> bool:
        """Whether there is no doubt left that its one question kills engines."""
        return (
            len(self.questions) == 1 and self.alone >= DEATHS_ALONE and self.alone - self.in_company >= DEATHS_BY_ITSELF
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of suspects that are judged as one.

    Attributes:
        worst: The one of them with the most deaths, from which the parts inherit.
        parts: What is to be run alone; nothing if `worst` is convicted or nothing is left to be answered.
        in_company: What the parts have as `Suspect.in_company`.
    """

    worst: Suspect
    parts: list[Sequence[tuple[bytes, Question]]]
    in_company: int

    def history(self) -> dict[str, int | str]:
        """What the parts inherit, as Redis has it."""
        worst = self.worst
        counts: dict[str, int | str] = {
            "attempts": worst.attempts,
            "deaths": worst.deaths,
            "alone": worst.alone,
            "in_company": self.in_company,
        }
        return counts | {"died": ",".join(worst.died)}


def judge(group: Sequence[Suspect]) -> Judgement:
    """Divide what has more than one open question; have a single one run again until it is convicted."""
    worst = max(group, key=lambda suspect: suspect.deaths)
    questions = [question for suspect in group for question in suspect.questions]
    parts = [] if worst.convicted else divide(questions)
    return Judgement(worst, parts, worst.in_company if len(questions) == 1 else worst.alone)


def divide(questions: Sequence[Item]) -> list[Sequence[Item]]:
    """What to run alone next: up to `PARTS` parts of nearly the same size, in order; none if there is nothing."""
    size = -(-len(questions) // PARTS)
    return [questions[start : start + size] for start in range(0, len(questions), size)] if questions else []


def seen_together(suspects: Iterable[Suspect], max_bytes: int) -> list[list[Suspect]]:
    """Suspects that are judged as one: what the same worker had when it died.

    What was isolated already is a case of its own. A group has at most `max_bytes` of questions, unless a batch alone has more.
    """
    groups: dict[object, list[list[Suspect]]] = {}
    for suspect in suspects:
        of_one_death = groups.setdefault(suspect.batch_id if suspect.alone else suspect.died[-1:], [[]])
        if sum(map(_bytes_of, of_one_death[-1])) + _bytes_of(suspect) > max_bytes and of_one_death[-1]:
            of_one_death.append([])
        of_one_death[-1].append(suspect)
    return [group for of_one_death in groups.values() for group in of_one_death]


def _bytes_of(suspect: Suspect) -> int:
    return sum(len(encoded) for encoded, _ in suspect.questions)


class Quarantine:
    """Run by the leading batcher; every change is fenced by its lease."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        leadership: Leadership,
        hand_over: HandOver,
        *,
        max_bytes: int,
        run_ttl_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self._leadership = leadership
        self._hand_over = hand_over
        self._max_bytes = max_bytes
        self._run_ttl_s = int(run_ttl_s)
        self._publish = client.register_script(load_script("wire", "publish"))

    def judge_all(self, models: set[str]) -> None:
        """Divide or convict every suspect batch, up to `AT_ONCE` of each model.

        Raises:
            LeaseLostError: This batcher does not lead any more; the batch at hand was not changed.
        """
        for model in sorted(models):
            ids: Any = self._client.lrange(self._keys.suspects(model), 0, AT_ONCE - 1)
            suspects = [
                suspect
                for suspect in (self._look_up_or_put_last(model, batch_id) for batch_id in ids)
                if suspect is not None
            ]
            for group in seen_together(suspects, self._max_bytes):
                self._judge(model, group)

    def _judge(self, model: str, group: Sequence[Suspect]) -> None:
        judgement = judge(group)
        if judgement.worst.convicted:
            # Before the batch is dropped: if this is cut short, the next leader convicts again, and the first record wins.
            self._convict(judgement.worst)
        with self._fenced(model) as pipe:
            for part in judgement.parts:
                self._hand_over.isolate(model, [encoded for encoded, _ in part], judgement.history(), pipe)
            for suspect in group:
                pipe.lrem(self._keys.suspects(model), 1, suspect.batch_id)  # type: ignore[arg-type]
                pipe.delete(_job(suspect.batch_id))
        if judgement.parts:
            sizes = ", ".join(str(len(part)) for part in judgement.parts)
            ids = {"batch": judgement.worst.batch_id.decode("utf-8", "replace"), "model": model}
            log.warning(
                "%d workers died with the same questions, which now run alone in parts of %s",
                judgement.worst.deaths,
                sizes,
                extra=ids,
            )

    def _look_up_or_put_last(self, model: str, batch_id: bytes) -> Suspect | None:
        """None for what is not ours to judge: it goes to the end, so that those behind it are looked at."""
        try:
            return self._look_up(batch_id)
        except NewerMessageError as error:
            log.warning("suspect batch %s waits for a newer batcher: %s", batch_id.decode("utf-8", "replace"), error)
        with self._fenced(model) as pipe:
            pipe.lrem(self._keys.suspects(model), 1, batch_id)  # type: ignore[arg-type]
            pipe.rpush(self._keys.suspects(model), batch_id)
        return None

    @contextlib.contextmanager
    def _fenced(self, model: str) -> Iterator[Pipeline]:
        """Changes that are made in one step at the end of the block; not if this batcher does not lead any more: then LeaseLostError is raised."""
        pipe = self._client.pipeline()
        yield pipe
        self._leadership.commit(pipe, {self._keys.isolated(model): "list", self._keys.suspects(model): "list"})

    def _look_up(self, batch_id: bytes) -> Suspect:
        """Without questions if there is no such batch, or nothing of it can be read; then a worker has put it aside already.

        Raises:
            NewerMessageError: Some of it is of a wire version to come, and not ours to judge.
        """
        if self._client.type(_job(batch_id)) != b"hash":
            log.warning("suspect batch %a: no batch job of that id", batch_id)
            return Suspect(batch_id, 0, 0, 0, 0, (), ())
        found: Any = self._client.hmget(_job(batch_id), ["data", "attempts", "deaths", "alone", "in_company", "died"])
        data, attempts, deaths, alone, in_company, died = found
        try:
            encoded_questions = decode_batch(data or b"")
        except NewerMessageError:
            raise
        except MalformedMessageError as error:
            log.warning("suspect batch %a: %s", batch_id, error)
            encoded_questions = []
        questions = [(encoded, question) for encoded in encoded_questions if (question := _decoded(encoded))]
        with self._client.pipeline(transaction=False) as pipe:
            ask_states(pipe, self._keys, asked := [question for _, question in questions])
            states = read_states(asked, pipe.execute())
        open_ones = tuple(question for question, state in zip(questions, states, strict=True) if not state.is_done)
        workers = tuple((died or b"").decode("utf-8", "replace").split(","))
        return Suspect(
            batch_id,
            whole_number(attempts),
            whole_number(deaths),
            whole_number(alone),
            whole_number(in_company),
            workers,
            open_ones,
        )

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
            message = f"{suspect.deaths} workers died with this question in flight, the last {suspect.alone} with nothing else of others beside it"
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
                    failure.status,
                    len(encoded),
                    encode_record(failure),
                ],
            )


def _job(batch_id: bytes) -> str:
    return RQ_JOB_PREFIX + batch_id.decode("utf-8", "replace")


def _decoded(encoded: bytes) -> Question | None:
    try:
        return decode_question(encoded)
    except NewerMessageError:
        raise
    except MalformedMessageError:
        # The workers that had this batch have put it aside, each of them.
        return None
