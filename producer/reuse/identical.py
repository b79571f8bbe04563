"""Identical questions of a run: one of them is asked, and the others take its answer.

Only at temperature 0, where asking again would give the same but for the engine's own noise, and only where content,
model and all parameters are the same. What belongs to whom is in a temporary database, whatever the size of the run.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Self

import orjson
from msgspec.structs import replace

from producer.answers.answer_line import answer_line
from producer.answers.answers_file import AnswersFile
from producer.questions.duplicates import is_set
from producer.questions.question_file import Tick, read_checked, ticked
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.resume import FileRun, ResumeState
from producer.reuse.cache import AnswerCache
from producer.reuse.shared_records import SharedAnswer, Taken, from_line, shared_record
from wire.canonical_params import canonical
from wire.errors import UsageError
from wire.messages import Answer, Failure, JsonObject

log = logging.getLogger(__name__)

_AT_ONCE = 500
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA temp_store = FILE; BEGIN;
CREATE TABLE asked (idx INTEGER PRIMARY KEY, key BLOB UNIQUE);
CREATE TABLE waiting (leader INTEGER, idx INTEGER, id TEXT, metadata BLOB);
CREATE INDEX by_leader ON waiting (leader);
CREATE TABLE answered (id TEXT PRIMARY KEY, key BLOB) WITHOUT ROWID;
CREATE TABLE lines (key BLOB PRIMARY KEY, start INTEGER) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes answers to the same question the same, besides the question.

    Attributes:
        model: For questions that name none.
        sampling: Parameters of questions that bring none of their own, as far as they are known.
        engine: Whatever else the answers depend on: the kind of engine, the model's revision, the chat template.
    """

    model: str
    sampling: JsonObject
    engine: JsonObject = field(default_factory=dict)

    def key_of(self, question: ParsedQuestion) -> bytes | None:
        """16 bytes that are the same for the same question; None if its answer is for it alone."""
        if question.task != "generate":
            return None
        params = canonical({**self.sampling, **question.params}, chat=question.messages is not None)
        temperature = params.get("temperature")
        # What has a deadline may fail by it, which is nobody else's failure.
        if temperature is None or temperature != 0 or question.deadline_s is not None:
            return None
        asked = (self.engine, question.model or self.model, question.prompt, question.messages, params)
        return blake2b(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


class IdenticalQuestions:
    """Of one run, from `take_over` to its end. Used by one thread at a time, but for `waits`.

    Args:
        cache: Where answers of other runs are; None for none.

    Attributes:
        can_share: Whether one of the questions may share its answer.
    """

    def __init__(self, what: FileRun, identity: Identity, cache: AnswerCache | None = None) -> None:
        self.can_share = False
        self._what = what
        self._identity = identity
        self._cache = cache
        self._waits = bytearray((what.checked.count + 7) // 8)
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def take_over(self, stock: ResumeState, answers: AnswersFile, tick: Tick = lambda _: None) -> None:
        """Write lines for what is answered already, here or in the cache; find out what else is identical.

        Args:
            stock: What there is; brought up to date.

        Raises:
            UsageError: The answers file cannot be written, the cache cannot be read, or there is no room for temporary
                files.
        """
        try:
            if stock.tally.on_disk:
                self._find_answered(stock, answers, tick)
            with answers.path.open("rb") as lines:
                batch: list[tuple[SharedAnswer, bytes]] = []
                for question, key in self._open(stock, tick):
                    if (record := self._known(question, key, lines)) is not None:
                        batch.append((record, key))
                    else:
                        self._plan(question, key)
                    if len(batch) == _AT_ONCE:
                        self._write(batch, stock, answers)
                self._write(batch, stock, answers)
        except sqlite3.Error as error:
            raise UsageError(
                f"cannot keep questions in a temporary file ({error}); free some space, or set TMPDIR"
            ) from None

    def waits(self, index: int) -> bool:
        """Whether a question is not to be asked, because an identical one is."""
        return is_set(self._waits, index)

    def waiting_for(self, index: int) -> list[int]:
        """The questions that take the answer of this one."""
        return [row[0] for row in self._database.execute("SELECT idx FROM waiting WHERE leader = ?", (index,))]

    def with_shared(self, records: Sequence[Answer | Failure]) -> list[Answer | Failure]:
        """The records, each followed by those of the questions that take them; new answers go to the cache."""
        found: list[Answer | Failure] = []
        for record in records:
            found.append(record)
            rows = self._database.execute(
                "SELECT idx, id, metadata FROM waiting WHERE leader = ? ORDER BY idx", (record.index,)
            )
            found += [shared_record(record, (row[0], row[1], orjson.loads(row[2]))) for row in rows]
        self._keep(records)
        return found

    def _keep(self, records: Sequence[Answer | Failure]) -> None:
        """A cache that is full or damaged is no reason to stop asking."""
        if self._cache is None:
            return
        new = []
        for record in records:
            row = self._database.execute("SELECT key FROM asked WHERE idx = ?", (record.index,)).fetchone()
            if row is not None and isinstance(record, Answer):
                new.append((row[0], record.model, answer_line(replace(record, metadata=None, worker=None))))
        try:
            self._cache.put(self._what.run, new)
        except UsageError as error:
            log.warning("answers are not kept for other runs any more: %s", error)
            self._cache = None

    def _open(self, stock: ResumeState, tick: Tick) -> Iterator[tuple[ParsedQuestion, bytes]]:
        """Questions without a line that may share one."""
        for question, key in self._shareable(tick):
            if not is_set(stock.written, question.index):
                yield question, key

    def _shareable(self, tick: Tick) -> Iterator[tuple[ParsedQuestion, bytes]]:
        for question in ticked(read_checked(self._what.questions, self._what.reading, self._what.checked), tick):
            if not isinstance(question, Invalid) and (key := self._identity.key_of(question)) is not None:
                self.can_share = True
                yield question, key

    def _find_answered(self, stock: ResumeState, answers: AnswersFile, tick: Tick) -> None:
        """Where the lines begin that others may take."""
        rows = (
            (question.request_id, key)
            for question, key in self._shareable(tick)
            if is_set(stock.written, question.index)
        )
        self._database.executemany("INSERT OR IGNORE INTO answered VALUES (?, ?)", rows)
        start = 0
        with answers.path.open("rb") as lines:
            for line in lines:
                fields = _loaded(line)
                if fields.get("status") == "answered":
                    self._database.execute(
                        "INSERT OR IGNORE INTO lines SELECT key, ? FROM answered WHERE id = ?",
                        (start, fields.get("id")),
                    )
                start += len(line)

    def _known(self, question: ParsedQuestion, key: bytes, lines: Any) -> SharedAnswer | None:  # noqa: ANN401 (a file)
        """The answer of an identical question."""
        taken: Taken = (question.index, question.request_id, question.metadata)
        row = self._database.execute("SELECT start FROM lines WHERE key = ?", (key,)).fetchone()
        if row is not None:
            lines.seek(row[0])
            return from_line(_loaded(lines.readline()), taken, run=self._what.run)
        found = self._cache.get(key) if self._cache is not None else None
        return None if found is None else from_line(found[1], taken, run=self._what.run, of_run=found[0])

    def _plan(self, question: ParsedQuestion, key: bytes) -> None:
        """The first one of its kind is asked; the others wait for it."""
        index = question.index
        if self._database.execute("INSERT OR IGNORE INTO asked VALUES (?, ?)", (index, key)).rowcount > 0:
            return
        (leader,) = self._database.execute("SELECT idx FROM asked WHERE key = ?", (key,)).fetchone()
        row = (leader, index, question.request_id, orjson.dumps(question.metadata))
        self._database.execute("INSERT INTO waiting VALUES (?, ?, ?, ?)", row)
        self._waits[index >> 3] |= 0x80 >> (index & 7)

    def _write(self, batch: list[tuple[SharedAnswer, bytes]], stock: ResumeState, answers: AnswersFile) -> None:
        if not batch:
            return
        answers.write([record for record, _ in batch])
        for record, _ in batch:
            stock.written[record.index >> 3] |= 0x80 >> (record.index & 7)
            stock.tally.count(record)
        stock.tally.resumed += len(batch)
        stock.tally.taken_over += len(batch)
        if self._cache is not None:
            self._cache.used([key for _, key in batch])
        batch.clear()


def _loaded(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
