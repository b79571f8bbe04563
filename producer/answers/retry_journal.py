"""Records of retried questions, kept beside the answers file until they replace the failures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from producer.answers.answers_file import AnswersFile
from producer.questions.duplicates import IdTable, id_table, is_set
from producer.questions.question_file import Tick, read_checked, ticked
from producer.resume import FileRun, ResumeState

SUFFIX = ".retry"
TELLS_NOTHING: frozenset[str] = frozenset({"cancelled", "expired"})
"""Kinds of failure that leave what was known of a question as it was."""
_QUESTION, _LINE, _RETRIED = 0, 1, 2


class RetryJournal(AnswersFile):
    """`NAME.retry`, written as an answers file is.

    The answers file keeps the line of each failure until there is another for it, so it is whole at any time.

    Args:
        answers: The answers file, which has a line for every question of its run.
        kinds: The kinds of failure that are asked again; empty for all that are retryable.
    """

    def __init__(self, answers: AnswersFile, kinds: frozenset[str]) -> None:
        super().__init__(answers.path.with_name(answers.path.name + SUFFIX), follows_link=False)
        self._answers = answers
        self._kinds = kinds

    def begin(self, what: FileRun) -> bool:
        """Make it that of a run; returns whether nothing of it was asked before.

        What an earlier attempt wrote takes its places; of one with other settings no more is remembered.
        """
        stored = self.stored()
        is_new = stored is None or stored.get("fingerprint") != what.fingerprint
        if stored is not None:
            self._end_torn_line()
            self._merge()
        if is_new:
            self.cut(0)
            self.forget_run()
        return is_new

    def reopen(self, what: FileRun, stock: ResumeState, tick: Tick = lambda _: None) -> int:
        """Mark the failures to be retried as open in `stock`; returns how many."""
        found = 0
        with id_table() as table:
            for question in ticked(read_checked(what.questions, what.reading, what.checked), tick):
                table.add(question.request_id, _QUESTION, question.index)
            for _, _, fields in self._answers.lines():
                if self._wants(fields):
                    table.add(fields["id"], _LINE, 0)
            for request_id, _ in self.ids():
                table.add(request_id, _RETRIED, 0)
            for _, uses in groupby(table.uses(), itemgetter(0)):
                indices = {kind: index for _, kind, index, _ in uses}
                index = indices.get(_QUESTION, -1)
                if index >= 0 and _LINE in indices and _RETRIED not in indices and is_set(stock.written, index):
                    stock.written[index >> 3] ^= 0x80 >> (index & 7)
                    found += 1
        tally = stock.tally
        tally.on_disk -= found
        tally.failed -= found
        tally.resumed = tally.on_disk
        return found

    def conclude(self, *, is_complete: bool) -> None:
        """Move the records to the answers file, and remove the journal if it is complete."""
        self._merge()
        if is_complete:
            # Last of all the lines: without what says whose they are, they are known to be in their places.
            self.sidecar.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def _wants(self, fields: dict[str, Any]) -> bool:
        error = fields.get("error")
        if fields["status"] != "failed" or fields.get("removed") or not isinstance(error, dict):
            return False
        return error.get("kind") in self._kinds if self._kinds else bool(error.get("retryable"))

    def _merge(self) -> None:
        if not self.size():
            return
        with id_table() as by_id, id_table() as by_place:
            for number, (_, _, fields) in enumerate(self._answers.lines()):
                by_id.add(fields["id"], _LINE, number)
            for start, _, fields in self.lines():
                if (fields.get("error") or {}).get("kind") not in TELLS_NOTHING:
                    by_id.add(fields["id"], _RETRIED, start)
            for _, uses in groupby(by_id.uses(), itemgetter(0)):
                numbers = {kind: number for _, kind, number, _ in uses}
                if len(numbers) > 1:
                    by_place.add("", _LINE, numbers[_LINE], numbers[_RETRIED])
            self._answers.replace_lines(self._merged(by_place))

    def _merged(self, by_place: IdTable) -> Iterator[bytes]:
        places = by_place.uses()
        place = next(places, None)
        with self.path.open("rb") as retried:
            for number, (_, line, _) in enumerate(self._answers.lines()):
                if place is not None and place[2] == number:
                    retried.seek(place[3])
                    yield retried.readline()
                    place = next(places, None)
                else:
                    yield line if line.endswith(b"\n") else line + b"\n"
