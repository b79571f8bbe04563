"""`run` and `submit`: files of questions become a file of answers."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from batchfleet.runs import summary
from batchfleet.runs.deliver import deliver
from batchfleet.runs.dry_run import dry_run, tuned_rate
from batchfleet.runs.ledger import find_ledger
from batchfleet.runs.long_step import LongStep
from batchfleet.runs.progress import ProgressView
from batchfleet.runs.resume_hint import how_to_correct, how_to_go_on, to_do
from batchfleet.runs.retry import opened_retry
from batchfleet.runs.reuse import opened_reuse, take_over
from batchfleet.runs.run_request import STDIN, RunRequest, prepare
from batchfleet.runs.signals import Interruption
from batchfleet.runs.summary import Outcome
from batchfleet.runs.unserved import UnservedNotice, asked_models, ensure_served, tell_awaited
from batchfleet.runs.update import update
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.status.served import fleet_status, served_models
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from batchfleet.supervisor.local_fleet import LocalFleet
from batchfleet.supervisor.local_plan import LocalPlan
from batchfleet.supervisor.processes import ChildRefusedError
from batchfleet.terminal import width_of
from producer.answers.answers_file import AnswersFile
from producer.file_run import AllFailAlikeError, RunCancelledError, Runner
from producer.options import ProducerOptions
from producer.questions.row_keys import SUFFIX
from producer.questions.stdin_spool import spool_path
from producer.remote.download import copies_folder
from producer.remote.location import shown
from producer.remote.upload import exists, upload
from producer.resume import FileRun, ResumeState, take_stock
from producer.run_loop import StuckError
from producer.sender_thread import NotFinishedError
from wire.address import RedisAddress
from wire.connection import opened
from wire.errors import UsageError

ALIKE = 100
"""If so many first questions fail for the same reason, it is hardly theirs."""


def run_file(asking: RunRequest, settings: Settings, engine: str, workers: int) -> int:
    """`batchfleet run`: the whole fleet on this machine, for one file.

    Returns:
        The exit code: 0 every question answered, 1 some failed, 3 not finished, 130 interrupted.
    """
    return _to_the_end(lambda: _run(asking, settings, engine, workers))


def submit_file(asking: RunRequest, settings: Settings) -> int:
    """`batchfleet submit`: one file, to a fleet that runs elsewhere. Returns the exit code, as `run_file`."""
    return _to_the_end(lambda: _submit(asking, settings))


def _to_the_end(attempt: Callable[[], int | None]) -> int:
    """Failed questions are asked again once every question has its line, which may take an attempt of its own."""
    code = None
    while code is None:
        code = attempt()
    return code


def _run(asking: RunRequest, settings: Settings, engine: str, workers: int) -> int | None:
    model = to_options.model_name(settings, engine)
    served = {model}
    if settings.redis.url:
        # Before a fleet is started on it, of which each part would say so in its own words.
        with opened(address := to_options.redis_address(settings), may_evict=False):
            served.update(served_models(address))
    what = prepare(asking, settings, asking.served_as or model, settings.model.generator_settings.sampling_defaults)
    ensure_served(what, sorted(served))
    if asking.is_dry:
        return dry_run(what, asking, settings, tuned_rate(settings, engine, workers), None)
    plan = LocalPlan.of(settings, os.environ, engine=engine, workers=workers)
    with (
        AnswersFile(asking.to.journal, follows_link=asking.to.journal == asking.to.path) as answers,
        Interruption() as interruption,
        opened_retry(what, answers, asking) as retry,
        opened_reuse(what, asking, settings, engine, settings.model.generator_settings.sampling_defaults) as identical,
    ):
        if asking.updates:
            known = to_options.redis_address(settings) if settings.redis.url else None
            update(what, answers, asking, interruption, _producer_options(asking, settings), known, LocalFleet(plan))
        stock = retry.reopened(_stock_of(what, answers, asking, interruption), interruption)
        take_over(identical, stock, answers, interruption, quiet=asking.quiet)
        if stock.is_complete:
            # Not worth booting an engine for.
            return _report(asking, what, Outcome(what.run, what.default_model, stock.tally), interruption)
        with LocalFleet(plan) as fleet, ProgressView(quiet=asking.quiet) as view:
            address = to_options.redis_address(settings, url=fleet.redis_url)
            fleet.wait_until_serving(address, view.say, interruption.check)
            options = _producer_options(asking, settings)
            retry.begin(address)
            runner = Runner(
                what,
                stock,
                retry.target,
                address,
                options,
                identical=identical,
                observe=view.show,
                check_fleet=fleet.check,
            )
            # A private queue ends with its fleet.
            kept_s = None if settings.redis.url is None else options.run_ttl_s
            return retry.code_of(_ask(runner, what, asking, address, view, interruption, kept_s))


def _producer_options(asking: RunRequest, settings: Settings) -> ProducerOptions:
    alike = 0 if asking.keep_going else ALIKE
    options = to_options.producer_options(
        settings, wait_for_room=asking.wait_for_room, stop_when_alike=alike, priority=asking.priority
    )
    return replace(options, max_tokens_total=asking.max_tokens_total, max_seconds=asking.max_seconds)


def _submit(asking: RunRequest, settings: Settings) -> int | None:
    address = to_options.redis_address(settings)
    with opened(address, may_evict=False):
        pass
    # What nobody has set here is the workers' to say.
    model = asking.served_as or served_model(address, settings)
    what = prepare(asking, settings, model, settings.model.generator_settings.given_sampling)
    if asking.is_dry:
        return dry_run(what, asking, settings, None, address)
    with (
        AnswersFile(asking.to.journal, follows_link=asking.to.journal == asking.to.path) as answers,
        Interruption() as interruption,
        opened_retry(what, answers, asking) as retry,
        opened_reuse(what, asking, settings, None, settings.model.generator_settings.given_sampling) as identical,
    ):
        if asking.updates:
            update(what, answers, asking, interruption, _producer_options(asking, settings), address, nullcontext())
        stock = retry.reopened(_stock_of(what, answers, asking, interruption), interruption)
        take_over(identical, stock, answers, interruption, quiet=asking.quiet)
        with ProgressView(quiet=asking.quiet) as view:
            if not stock.is_complete:
                fleet, scaled = fleet_status(address), settings.processing.scaled_models
                notice = UnservedNotice(what, fleet.served_models, time.monotonic(), scaled)
                view.notice_unserved(notice)
                if not asking.quiet:
                    tell_awaited(what, fleet, scaled)
            options = _producer_options(asking, settings)
            retry.begin(address)
            runner = Runner(what, stock, retry.target, address, options, identical=identical, observe=view.show)
            return retry.code_of(_ask(runner, what, asking, address, view, interruption, options.run_ttl_s))


def _stock_of(what: FileRun, answers: AnswersFile, asking: RunRequest, interruption: Interruption) -> ResumeState:
    """What is there already. A file that will take the place of another must be our own."""
    is_new, to = answers.size() == 0, asking.to
    with LongStep(
        "matching the answers that are there",
        "rows",
        "nothing more was submitted",
        check=interruption.check,
        quiet=asking.quiet,
    ) as step:
        stock = take_stock(what, answers, step)
    if is_new and to.path != to.journal and to.path.exists() and to.path.stat().st_size:
        raise UsageError(
            f"{to.path} already exists, and no {to.journal.name} says that it holds answers of batchfleet; move it "
            "away, or choose another -o"
        )
    # Before a run, not after it: whether it can be reached at all.
    if asking.upload_to is not None and exists(asking.upload_to) and is_new:
        raise UsageError(
            f"{shown(asking.upload_to)} exists already, and no {to.journal} says that it holds answers of batchfleet; "
            "choose another -o"
        )
    return stock


def _keep_keys(what: FileRun, answers: Path) -> None:
    try:
        if what.keys is not None:
            what.keys.save(answers, what.begun_with or what.fingerprint)
    except OSError as error:
        raise UsageError(
            f"cannot write to {answers}{SUFFIX}: {error.strerror}; free some space and run the same command again"
        ) from None


def _ask(
    runner: Runner,
    what: FileRun,
    asking: RunRequest,
    address: RedisAddress,
    view: ProgressView,
    interruption: Interruption,
    kept_s: float | None,
) -> int:
    interruption.calls(runner.stop)
    collect_garbage_rarely()
    _keep_keys(what, asking.to.journal)
    view.follow(address, asked_models(what))
    try:
        runner.run()
    except (NotFinishedError, RunCancelledError, StuckError, ChildRefusedError) as error:
        view.close()
        runner.tally.ended = time.monotonic()
        if asking.as_json:
            print(json.dumps(summary.as_dict(what.run, runner.tally)))
        summary.save(Outcome(what.run, what.default_model, runner.tally, view.gpu_s), asking.answers)
        print(f"batchfleet: {'interrupted' if interruption.asked else error}", file=sys.stderr)
        if isinstance(error, NotFinishedError | ChildRefusedError):
            cancel = f"batchfleet cancel {what.run} --redis {address.shown()}"
            width = width_of(sys.stderr)
            print(
                how_to_go_on(runner.tally, asking.to.journal, asking.again, cancel, kept_s=kept_s, width=width),
                file=sys.stderr,
            )
        return 130 if interruption.asked else 2 if isinstance(error, ChildRefusedError) else 3
    except AllFailAlikeError as error:
        view.close()
        is_gone = kept_s is None or asking.take_back(address, what.run, kept_s)
        if asking.as_json:
            print(json.dumps(summary.as_dict(what.run, runner.tally)))
        what_to_do = how_to_correct(
            asking.to.journal, asking.again, None if is_gone else what.run, width=width_of(sys.stderr)
        )
        print(f"batchfleet: {error}\n{what_to_do}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        # A second Ctrl-C: no time to count.
        view.close()
        again = to_do("to resume:   ", asking.again, width_of(sys.stderr))
        print(f"batchfleet: stopped at once\n  what is in {asking.to.journal} stays\n  {again}", file=sys.stderr)
        raise
    view.close()
    return _report(
        asking,
        what,
        Outcome(what.run, what.default_model, runner.tally, view.gpu_s, find_ledger(address, what.run)),
        interruption,
    )


def _report(asking: RunRequest, what: FileRun, outcome: Outcome, interruption: Interruption) -> int:
    """Deliver the answers of a finished run, and say how it went; returns the exit code."""
    deliver(what, outcome.tally, asking.to, interruption.check, quiet=asking.quiet)
    if asking.upload_to is not None:
        upload(asking.to.path, asking.upload_to)
    if asking.questions == (STDIN,):
        spool_path(asking.to.journal).unlink(missing_ok=True)
    # Nothing of it is on its way any more.
    asking.to.journal.with_name(asking.to.journal.name + SUFFIX).unlink(missing_ok=True)
    shutil.rmtree(copies_folder(asking.to.journal), ignore_errors=True)
    # Answers that only pass through have no file that one could read later.
    saved = None if asking.is_piped else summary.save(outcome, asking.answers)
    if asking.as_json:
        print(json.dumps(summary.as_dict(outcome.run, outcome.tally)))
    if not asking.quiet:
        where = "standard output" if asking.is_piped else str(asking.answers)
        if asking.upload_to is not None:
            where = f"{shown(asking.upload_to)}, and as they came in {asking.to.journal}"
        print(summary.as_text(outcome, where, saved), file=sys.stderr)
    return 1 if outcome.tally.failed else 0


def served_model(address: RedisAddress, settings: Settings) -> str:
    """The model for questions that name none: the configured one, else the only one that workers serve.

    Raises:
        UsageError: There is none, or more than one.
    """
    if settings.model_name is not None:
        return settings.model_name
    models = served_models(address)
    if len(models) == 1:
        return models[0]
    known = f"workers serve {', '.join(models)}" if models else "no worker has reported yet"
    raise UsageError(f"which model should answer? {known}; give --model NAME")
