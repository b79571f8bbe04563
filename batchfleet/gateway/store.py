"""What a gateway knows of files, uploads and batches: SQLite in its data folder, which several gateways may share.

Whatever a method has written is there after a crash of the process or of the machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wire.errors import UsageError

NAME = "gateway.sqlite"
BUSY_S = 60.0
"""How long a gateway waits for another that writes. A transaction here takes milliseconds."""
ID_BYTES = 16

_MIGRATIONS = (
    """
    CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
      filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,
      expires_at INTEGER, batch_id TEXT);
    CREATE INDEX files_by_owner ON files (owner, seq);
    CREATE INDEX files_by_end ON files (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE uploads (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
      filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL, created_at INTEGER NOT NULL,
      expires_at INTEGER NOT NULL, status TEXT NOT NULL, file_id TEXT, file_expires_after INTEGER);
    CREATE TABLE parts (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, upload_id TEXT NOT NULL,
      bytes INTEGER NOT NULL, created_at INTEGER NOT NULL);
    CREATE INDEX parts_by_upload ON parts (upload_id);
    CREATE TABLE batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
      status TEXT NOT NULL, endpoint TEXT NOT NULL, input_file_id TEXT NOT NULL, completion_window TEXT NOT NULL,
      model TEXT, metadata TEXT, errors TEXT, usage TEXT, output_file_id TEXT, error_file_id TEXT,
      output_expires_after INTEGER, total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0,
      failed INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
      in_progress_at INTEGER, finalizing_at INTEGER, completed_at INTEGER, failed_at INTEGER, expired_at INTEGER,
      cancelling_at INTEGER, cancelled_at INTEGER);
    CREATE INDEX batches_by_owner ON batches (owner, seq);
    CREATE INDEX batches_open ON batches (seq) WHERE status IN
      ('validating', 'in_progress', 'finalizing', 'cancelling');
    CREATE INDEX batches_by_input ON batches (input_file_id);
    """,
    """
    ALTER TABLE batches ADD COLUMN bugs INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE repeats (object TEXT NOT NULL, owner TEXT NOT NULL, key BLOB NOT NULL, asked BLOB NOT NULL,
      object_id TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (object, owner, key)) WITHOUT ROWID;
    CREATE INDEX repeats_by_age ON repeats (created_at);
    """,
)
"""Each takes the tables from one version, which is its place here, to the next. What was released stays as it is."""


class Store:
    """The database and the folders beside it. Threads and processes may use it at once.

    Attributes:
        folder: Belongs to gateways alone; nobody else may read it, as it holds what people ask.
    """

    def __init__(self, folder: Path) -> None:
        """Open it; make what is missing.

        Raises:
            UsageError: The folder cannot be used, or a newer gateway has written it.
        """
        self.folder = folder
        self._lock = threading.Lock()
        try:
            for part in (folder, folder / "files", folder / "batches"):
                part.mkdir(mode=0o700, parents=part == folder, exist_ok=True)
            with _alone(folder / "opening.lock"):
                self._database = _opened(folder / NAME)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"--data {folder}: it cannot be used ({error}); name a folder on a local disk that this user may write"
            ) from error

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block is written, or nothing of it."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # SQLite ends it by itself where the disk is full.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def rows(self, query: str, *values: str | int | None) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def row(self, query: str, *values: str | int | None) -> sqlite3.Row | None:
        """The first one; None if there is none."""
        return next(iter(self.rows(query, *values)), None)

    def content(self, file_id: str) -> Path:
        """Where a file's bytes are. For ids that came out of the database, never for words of a client."""
        return self.folder / "files" / file_id

    def journal(self, batch_id: str) -> Path:
        """The answers of a batch that runs, in our own format. For ids out of the database."""
        return self.folder / "batches" / f"{batch_id}.jsonl"

    def remove_journal(self, batch_id: str) -> None:
        """Once all of it stands in the files of the batch."""
        journal = self.journal(batch_id)
        for path in (journal, journal.with_name(f"{journal.name}.run")):
            path.unlink(missing_ok=True)


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(ID_BYTES)


def now() -> int:
    """Unix time in seconds: all times in here."""
    return int(time.time())


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    # What a client was told is accepted survives a power cut as well.
    database.execute("PRAGMA synchronous = FULL")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        database.close()
        raise UsageError(
            f"{path} was written by a newer batchfleet (version {version} of its tables); upgrade this one"
        )
    for number, migration in enumerate(_MIGRATIONS[version:], version + 1):
        database.executescript(f"BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;")
    return database


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: SQLite does not wait for another that turns write-ahead logging on."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
