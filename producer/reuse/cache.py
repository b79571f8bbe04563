"""A folder of answers to be used again by later runs: one SQLite database, bounded, shared by processes of one machine.

It holds answer lines under hashes of what was asked. JSON is all that is read from it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from wire.errors import UsageError

FILE = "answers.sqlite3"
_VERSION = 1
_WAIT_S = 30.0
_FULL, _ROW_BYTES = 0.9, 100
"""After pruning it is so full; a row takes about so many bytes besides its answer."""
_SCHEMA = """
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN IMMEDIATE;
CREATE TABLE answers (key BLOB PRIMARY KEY, model TEXT, run TEXT, line BLOB, bytes INTEGER, used REAL) WITHOUT ROWID;
CREATE INDEX by_use ON answers (used);
CREATE TABLE total (bytes INTEGER);
INSERT INTO total VALUES (0);
CREATE TRIGGER added AFTER INSERT ON answers BEGIN UPDATE total SET bytes = bytes + NEW.bytes; END;
CREATE TRIGGER dropped AFTER DELETE ON answers BEGIN UPDATE total SET bytes = bytes - OLD.bytes; END;
PRAGMA user_version = 1;
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds.

    Attributes:
        bytes: Of the answers; of the file.
        oldest_use, newest_use: When an answer was last written or used, in seconds since 1970; 0 without any.
        models: Answers by model.
    """

    answers: int
    bytes: int
    file_bytes: int
    oldest_use: float
    newest_use: float
    models: dict[str, int]


class AnswerCache:
    """One cache, open.

    Args:
        folder: Made if it is missing, readable for this user alone.
        max_bytes: What is used least recently goes when the answers take more.

    Raises:
        UsageError: It cannot be read or written, is no cache, or of a later version; from every method.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.path = folder / FILE
        self._max_bytes = max_bytes
        with self._complaining():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Before SQLite makes it, which would let others read it.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            self._ensure_ours()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, key: bytes) -> tuple[str, dict[str, Any]] | None:
        """The run that an answer is of, and its line."""
        with self._complaining():
            found = self._database.execute("SELECT run, line FROM answers WHERE key = ?", (key,)).fetchone()
        try:
            fields = orjson.loads(found[1]) if found else None
        except orjson.JSONDecodeError:
            return None
        return (str(found[0]), fields) if isinstance(fields, dict) else None

    def put(self, run: str, answers: Sequence[tuple[bytes, str, bytes]]) -> None:
        """Keep answers: key, model and line of each. What is there under a key stays."""
        now = time.time()
        rows = [(key, model, run, line, len(line) + _ROW_BYTES, now) for key, model, line in answers]
        with self._complaining(), self._transaction():
            self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
            is_full = self._one("SELECT bytes FROM total") > self._max_bytes
        if is_full:
            self.prune(int(self._max_bytes * _FULL))

    def used(self, keys: Sequence[bytes]) -> None:
        """Note that these answers were of use, so that others go first."""
        now = time.time()
        with self._complaining(), self._transaction():
            self._database.executemany("UPDATE answers SET used = ? WHERE key = ?", ((now, key) for key in keys))

    def prune(
        self, max_bytes: int | None = None, *, unused_for_s: float | None = None, model: str | None = None
    ) -> int:
        """Drop answers, and give their room back to the disk; returns how many went.

        Args:
            max_bytes: Those that were used least recently, until the others take no more than this.
            unused_for_s: Those that were not used for so long.
            model: All of this model.
        """
        with self._complaining(), self._transaction():
            before: int = self._one("SELECT COUNT(*) FROM answers")
            if model is not None:
                self._database.execute("DELETE FROM answers WHERE model = ?", (model,))
            if unused_for_s is not None:
                self._database.execute("DELETE FROM answers WHERE used < ?", (time.time() - unused_for_s,))
            if max_bytes is not None:
                self._database.execute(
                    "DELETE FROM answers WHERE key IN (SELECT key FROM (SELECT key, SUM(bytes) OVER "
                    "(ORDER BY used DESC, key) AS total FROM answers) WHERE total > ?)",
                    (max_bytes,),
                )
            after: int = self._one("SELECT COUNT(*) FROM answers")
        with self._complaining():
            self._database.execute("PRAGMA incremental_vacuum").fetchall()
        return before - after

    def stats(self) -> CacheStats:
        with self._complaining():
            count, size, oldest, newest = self._database.execute(
                "SELECT COUNT(*), COALESCE(SUM(bytes), 0), COALESCE(MIN(used), 0), COALESCE(MAX(used), 0) FROM answers"
            ).fetchone()
            models = dict(
                self._database.execute("SELECT model, COUNT(*) FROM answers GROUP BY model ORDER BY 2 DESC LIMIT 100")
            )
            return CacheStats(count, size, self.path.stat().st_size, oldest, newest, models)

    def _ensure_ours(self) -> None:
        with self._transaction():
            version = self._one("PRAGMA user_version")
            tables = self._one("SELECT COUNT(*) FROM sqlite_master")
        if version == 0 and not tables:
            try:
                self._database.executescript(_SCHEMA)
            except sqlite3.OperationalError as error:
                if "already exists" not in str(error):
                    raise
                # Another process was faster.
                self._database.execute("ROLLBACK")
        elif version != _VERSION:
            what = f"of version {version}" if version else "something else"
            raise UsageError(f"{self.path} is {what}; name another folder for --cache")

    def _one(self, query: str) -> Any:  # noqa: ANN401 (whatever SQLite has)
        return self._database.execute(query).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"cannot use the cache {self.path}: {reason}; mend or remove it, or name another folder for --cache"
            ) from None
