"""Asking again what failed: which questions, in which run, and where their records go meanwhile."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from batchfleet.humanize import count, plural
from batchfleet.runs.long_step import LongStep
from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.signals import Interruption
from producer.answers.answers_file import AnswersFile
from producer.answers.retry_journal import RetryJournal
from producer.resume import FileRun, ResumeState
from wire.address import RedisAddress
from wire.errors import UsageError


class Retry:
    """Of one run; without a journal, nothing is asked again.

    Attributes:
        target: Where records go.
    """

    def __init__(self, what: FileRun, answers: AnswersFile, journal: RetryJournal | None, asking: RunRequest) -> None:
        self.target = answers
        self._what = what
        self._answers = answers
        self._journal = journal
        self._asking = asking
        self._is_new = journal is not None and journal.begin(what)
        self._is_first = False

    def reopened(self, stock: ResumeState, interruption: Interruption) -> ResumeState:
        """Take the failures for open, once every question has a line.

        Raises:
            UsageError: Some have none, and the parameters are not those of the others.
        """
        if self._journal is None:
            return stock
        if not stock.is_complete:
            if self._what.begun_with:
                raise UsageError(
                    f"{stock.tally.questions - stock.tally.on_disk} questions have no line yet, and would be asked "
                    "with other parameters than the rest; finish the run with its own parameters, then retry"
                )
            self._is_first = True
            return stock
        self.target = self._journal
        failed = stock.tally.failed
        with LongStep(
            "matching the failures",
            "rows",
            "nothing was asked again",
            check=interruption.check,
            quiet=self._asking.quiet,
        ) as step:
            found = self._journal.reopen(self._what, stock, step)
        if not found:
            self._journal.conclude(is_complete=True)
        if not self._asking.quiet:
            words = (
                f"asks {count(found)} of {plural(failed, 'failed question')} again" if failed else "nothing has failed"
            )
            print(f"batchfleet: {words}{'' if found == failed else self._why_not()}", file=sys.stderr)
        return stock

    def begin(self, address: RedisAddress) -> None:
        """Begin with asking: Redis takes no question of a run a second time, so it must not know the run any more."""
        if self._journal is None or self.target is not self._journal:
            return
        if self._is_new:
            self._asking.forget(address, self._what.run)
        self._journal.claim(self._what.run, self._what.fingerprint, {}, lambda _: "other questions")

    def code_of(self, code: int) -> int | None:
        """The exit code; None if the failed questions are to be asked again now."""
        return None if self._is_first and code == 1 else code

    def _why_not(self) -> str:
        kinds = Counter(
            str((fields.get("error") or {}).get("kind"))
            for _, _, fields in self._answers.lines()
            if fields["status"] == "failed"
        )
        named = ", ".join(f"{kind} {count(number)}" for kind, number in kinds.most_common())
        return f" (there are {named}; --kind A,B selects others)"


@contextmanager
def opened_retry(what: FileRun, answers: AnswersFile, asking: RunRequest) -> Iterator[Retry]:
    """What `--retry` asks for."""
    if asking.retry is None:
        yield Retry(what, answers, None, asking)
        return
    with RetryJournal(answers, asking.retry) as journal:
        yield Retry(what, answers, journal, asking)
