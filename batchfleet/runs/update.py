"""`--update`: of the answers to a file as it was, those stay that are answers to what it is now."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from batchfleet.humanize import count, plural
from batchfleet.runs.long_step import LongStep
from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.signals import Interruption
from batchfleet.supervisor.local_fleet import LocalFleet
from producer.answers.answers_file import AnswersFile
from producer.answers.retry_journal import SUFFIX, RetryJournal
from producer.answers.sidecar import IS_UPDATED, stored_about
from producer.answers.update import OUTDATED, Update, UpdateCounts
from producer.options import ProducerOptions
from producer.previous_run import PreviousRun
from producer.questions.row_keys import RowKeys
from producer.resume import FileRun
from producer.sender_thread import NotFinishedError
from wire.address import RedisAddress


def needs_update(what: FileRun, answers: Path) -> bool:
    """Whether there are answers, and they are not those of this run."""
    stored = stored_about(answers)
    is_ours = (stored.get("run"), stored.get("fingerprint")) == (what.run, what.fingerprint)
    return bool(stored) and (not is_ours or IS_UPDATED in stored) and answers.exists() and answers.stat().st_size > 0


def update(
    what: FileRun,
    answers: AnswersFile,
    asking: RunRequest,
    interruption: Interruption,
    options: ProducerOptions,
    address: RedisAddress | None,
    fleet: AbstractContextManager[LocalFleet | None],
) -> None:
    """Make the answers file that of this run. Nothing is asked.

    Args:
        address: Where the run may still be that it was of; None for nowhere.
        fleet: What answers; opened only if something of that one is still to be answered.

    Raises:
        UsageError: The lines do not say what they answer, or the disk is full; all is as it was.
    """
    stored = answers.stored()
    if stored is None or not needs_update(what, answers.path):
        return
    if address is not None:
        _collect(
            PreviousRun(address, str(stored.get("run")), stored["fingerprint"]),
            answers,
            asking,
            interruption,
            options,
            fleet,
        )
    if answers.path.with_name(answers.path.name + SUFFIX).exists():
        with RetryJournal(answers, frozenset()) as journal:
            journal.conclude(is_complete=True)
    with (
        LongStep(
            "matching rows and answers",
            "rows",
            "the answers are as they were",
            check=interruption.check,
            quiet=asking.quiet,
        ) as step,
        Update(what, answers.path, keeps_removed=asking.keeps_removed, tick=step) as found,
    ):
        _say(asking, "\n".join(described(found.counts, answers.path, keeps_removed=asking.keeps_removed)))
        # From here on the lines may be those of either file.
        answers.become({**stored, IS_UPDATED: True})
        found.apply(answers)
    if address is not None:
        # It may have been one of the same name, which Redis would take for answered.
        asking.forget(address, what.run)
    answers.become({"run": what.run, "fingerprint": what.fingerprint, **what.about})


def _collect(
    leftover: PreviousRun,
    answers: AnswersFile,
    asking: RunRequest,
    interruption: Interruption,
    options: ProducerOptions,
    fleet: AbstractContextManager[LocalFleet | None],
) -> None:
    """Take what the fleet has of the earlier file: rows that are still there are not to be asked again."""
    open_questions = leftover.count()
    if open_questions <= 0:
        return
    _say(asking, f"waiting for {plural(open_questions, 'answer')} to the earlier file that the fleet still has")
    keys = RowKeys.saved(answers.path, (answers.stored() or {})["fingerprint"])
    if keys is not None:
        answers.key_of = keys.of
    with fleet as local:

        def is_stopped() -> bool:
            if local is not None:
                local.check()
            return interruption.asked

        try:
            leftover.collect(answers, options, is_stopped)
        except NotFinishedError:
            raise KeyboardInterrupt from None


def described(counts: UpdateCounts, answers: Path, *, keeps_removed: bool) -> list[str]:
    """What an update finds, for people."""
    gone = "kept, marked `removed`" if keeps_removed else f"moved to {answers.name}{OUTDATED}"
    to_ask = count(counts.changed + counts.new)
    lines = [
        f"update of {answers}: {to_ask} of {plural(_rows(counts), 'question')} to be asked",
        f"  kept      {count(counts.kept)} have their line",
        f"  changed   {count(counts.changed)}",
        f"  new       {count(counts.new)}",
        f"  gone      {count(counts.removed)}" + (f", {gone}" if counts.removed else ""),
    ]
    return lines + ([f"  unusable  {count(counts.unusable)}"] if counts.unusable else [])


def _rows(counts: UpdateCounts) -> int:
    return counts.kept + counts.changed + counts.new + counts.unusable


def _say(asking: RunRequest, text: str) -> None:
    if not asking.quiet:
        print(f"batchfleet: {text}", file=sys.stderr, flush=True)
