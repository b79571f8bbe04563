"""`--dry-run`: what a run would ask, how much that is and how long it may take. Nothing is started or written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import orjson
import redis

from batchfleet.humanize import count, duration, plural
from batchfleet.runs.long_step import LongStep
from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.summary import SUFFIX
from batchfleet.runs.token_count import TokenCounter, token_counter
from batchfleet.runs.update import described, needs_update
from batchfleet.scoring.answer_keys import text_of
from batchfleet.settings.schema import Settings
from batchfleet.status.read import read_status
from gpu_worker.gpus.slices import SliceOptions
from producer.answers.answer_line import parse_line
from producer.answers.sidecar import difference, stored_about
from producer.answers.update import Update, UpdateCounts
from producer.questions.duplicates import id_table
from producer.questions.question_file import read_checked, ticked
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.selection import Selection
from producer.resume import FileRun
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError, UsageError
from wire.keys import Keys
from wire.messages import JsonObject
from wire.redis_errors import translated

SAMPLED = 1000
USUAL_MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast answers came before.

    Attributes:
        gpu_s: GPU seconds of one; 0 without GPUs, or where nobody knows.
        source: Where this is from, in words.
    """

    answers_per_s: float
    gpu_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would be.

    Attributes:
        questions, unusable, identical: Of the file; `identical` repeat another question.
        to_ask: Of these, without an answer.
        prompt_tokens: Of those to ask, from a sample; `counted_by` says how they were counted.
        max_completion_tokens: The most that they may write.
        too_long: Of the sample, longer than the model is known to take.
        seconds, gpu_hours: From the rate of before; None where there is none.
    """

    questions: int
    unusable: int
    identical: int
    to_ask: int
    prompt_tokens: int
    counted_by: str
    max_completion_tokens: int
    sampled: int
    too_long: int
    max_model_len: int | None
    seconds: float | None
    gpu_hours: float | None
    rate_from: str


def dry_run(
    what: FileRun, asking: RunRequest, settings: Settings, tuned: Rate | None, address: RedisAddress | None
) -> int:
    """Say what the run would be; returns the exit code.

    Args:
        tuned: What `tune` has measured, for where nothing was answered yet.
        address: Of the fleet, if it is there already.

    Raises:
        UsageError: It would be refused, with the reason.
    """
    update = _update(what, asking)
    rate = _rate_before(asking.answers) or (_rate_of_fleet(address, what.default_model) if address else None) or tuned
    counter = token_counter(what.default_model)
    sampling = settings.model.generator_settings.sampling_defaults
    forecast = _forecast(what, asking, update, sampling, _max_model_len(settings), counter, rate)
    if asking.as_json:
        print(json.dumps({**asdict(forecast), "update": asdict(update) if update else None}))
    if not asking.quiet:
        if update:
            print("\n".join(described(update, asking.to.journal, keeps_removed=asking.keeps_removed)), file=sys.stderr)
        print("\n".join(as_text(forecast)), file=sys.stderr)
    return 0


def _update(what: FileRun, asking: RunRequest) -> UpdateCounts | None:
    journal = asking.to.journal
    if not needs_update(what, journal):
        return None
    if not asking.updates:
        why = difference(stored_about(journal), what.run, what.fingerprint, lambda _: "other questions")
        raise UsageError(
            f"it would be refused: {journal} holds answers of something else: {why}; --update asks what has changed"
        )
    with Update(what, journal, keeps_removed=asking.keeps_removed) as found:
        return found.counts


def _forecast(
    what: FileRun,
    asking: RunRequest,
    update: UpdateCounts | None,
    sampling: JsonObject,
    max_model_len: int | None,
    counter: TokenCounter,
    rate: Rate | None,
) -> Forecast:
    total = what.checked.count
    chosen = Selection(sample=SAMPLED).positions(range(total)) or ()
    tokens = written = sampled = too_long = 0
    with LongStep("counting tokens", "rows", "nothing was asked", quiet=asking.quiet) as step, id_table() as table:
        for question in ticked(read_checked(what.questions, what.reading, what.checked), step):
            if isinstance(question, Invalid):
                continue
            asked = orjson.dumps((question.prompt, question.messages, question.model, question.params))
            table.add(blake2b(asked, digest_size=12).hexdigest(), 0, question.index)
            longest = {**sampling, **question.params}.get("max_tokens")
            written += longest if isinstance(longest, int) else USUAL_MAX_TOKENS
            if question.index in chosen:
                found = counter.count(_text(question))
                tokens, sampled = tokens + found, sampled + 1
                too_long += max_model_len is not None and found >= max_model_len
        identical = sum(len(list(uses)) - 1 for _, uses in groupby(table.uses(), itemgetter(0)))
    to_ask = update.changed + update.new if update else total - sum(1 for _ in _lines_there(what, asking))
    share = to_ask / total
    return Forecast(
        questions=total,
        unusable=what.checked.invalid,
        identical=identical,
        to_ask=to_ask,
        prompt_tokens=round(tokens / max(1, sampled) * to_ask),
        counted_by=counter.name,
        max_completion_tokens=round(written * share),
        sampled=sampled,
        too_long=too_long,
        max_model_len=max_model_len,
        seconds=to_ask / rate.answers_per_s if rate else None,
        gpu_hours=to_ask * rate.gpu_s / 3600 if rate and rate.gpu_s else None,
        rate_from=rate.source if rate else "",
    )


def as_text(forecast: Forecast) -> Iterator[str]:
    """For people."""
    yield f"{count(forecast.to_ask)} of {plural(forecast.questions, 'question')} would be asked; nothing was"
    if forecast.unusable:
        yield f"  unusable  {count(forecast.unusable)} would become failures"
    if forecast.identical:
        yield f"  identical {count(forecast.identical)} repeat another question"
    sampled = "" if forecast.sampled < SAMPLED else f", from a sample of {count(forecast.sampled)}"
    yield (
        f"  tokens    about {count(forecast.prompt_tokens)} to read ({forecast.counted_by}{sampled}), at most "
        f"{count(forecast.max_completion_tokens)} to write"
    )
    if forecast.too_long:
        yield (
            f"  too long  {count(forecast.too_long)} of {count(forecast.sampled)} looked at leave no room for an "
            f"answer in max_model_len = {forecast.max_model_len}, and would fail"
        )
    if forecast.seconds is None:
        yield "  time      not known: no earlier run of this model, and no tuned settings"
    else:
        gpus = f", {forecast.gpu_hours:.1f} GPU hours" if forecast.gpu_hours else ""
        yield f"  time      about {duration(forecast.seconds)}{gpus}, {forecast.rate_from}"


def _lines_there(what: FileRun, asking: RunRequest) -> Iterator[None]:
    """One for each line that is there of this run."""
    if stored_about(asking.to.journal).get("fingerprint") == what.fingerprint:
        with asking.to.journal.open("rb") as lines:
            yield from (None for line in lines if not (parse_line(line) or {"removed": True}).get("removed"))


def _text(question: ParsedQuestion) -> str:
    """What is asked, without images, and without what a chat template puts around it."""
    if question.prompt is not None:
        return question.prompt
    if question.inputs is not None:
        return orjson.dumps((question.query, question.inputs)).decode()
    return text_of(question)


def _max_model_len(settings: Settings) -> int | None:
    """The longest prompt with its answer, in tokens, as far as the configuration says."""
    args = settings.model.generator_settings.vllm_args
    found = args.get("max_model_len", args.get("max-model-len"))
    return found if isinstance(found, int) else None


def tuned_rate(settings: Settings, engine: str, workers: int) -> Rate | None:
    """What `tune` has written into the settings, for so many workers."""
    per_s = settings.processing.tuned_answers_per_s
    if per_s is None:
        return None
    needs = SliceOptions.of(engine, settings.model.generator_settings.vllm_args, os.environ)
    gpu_s = needs.count / per_s if needs.gpus.uuids else 0.0
    return Rate(
        per_s * workers, gpu_s, f"at the {per_s:g} questions/s that tune measured, by {plural(workers, 'worker')}"
    )


def _rate_before(answers: Path) -> Rate | None:
    """That of the call before with the same answers file."""
    try:
        call = orjson.loads(answers.with_name(answers.name + SUFFIX).read_bytes())["this_call"]
        answered, per_s = int(call["records"]), float(call["questions_per_s"])
        gpu_s = float(call["gpu_s"]) / max(1, answered)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return Rate(per_s, gpu_s, f"at the {per_s:g} questions/s of the call before") if per_s > 0 else None


def _rate_of_fleet(address: RedisAddress, model: str) -> Rate | None:
    """That of its workers now, else of the latest run of the model."""
    try:
        with translated(address), connect(address) as client:
            status = read_status(client, Keys(address.namespace))
    except (FleetError, redis.RedisError):
        return None
    workers = [worker for worker in status.workers if worker.model == model]
    per_s = sum(worker.answers_per_s for worker in workers)
    source = f"at the {per_s:.1f} questions/s of {plural(len(workers), 'worker')} now"
    if per_s <= 0:
        runs = [run for run in status.runs if run.model == model and run.answers_per_s > 0]
        per_s = runs[0].answers_per_s if runs else 0.0
        source = f"at the {per_s:.1f} questions/s of run {runs[0].run}" if runs else ""
    gpus = sum(len(worker.gpus) for worker in workers)
    return Rate(per_s, gpus / per_s, source) if per_s > 0 else None
