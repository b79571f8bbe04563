"""Files, and uploads that become files: their rows and their bytes on disk.

Every method takes the owner, and finds nothing that is somebody else's.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any, Literal

from batchfleet.gateway.list_page import Listing, page_of
from batchfleet.gateway.repeats import Repeat, earlier, remember
from batchfleet.gateway.store import Store, new_id, now

OUTPUT = "batch_output"
OPEN_BATCH = "('validating', 'in_progress', 'finalizing', 'cancelling')"


class FileTable:
    """The files of all owners."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self,
        owner: str,
        filename: str,
        purpose: str,
        part: Path,
        *,
        expires_after_s: int | None = None,
        repeat: Repeat | None = None,
    ) -> dict[str, Any]:
        """Take in a file whose bytes are whole and safe on disk at `part`, which is moved.

        Args:
            repeat: If such a request made a file before, that one is returned.
        """
        file_id = self.move_in(part)
        made = None
        try:
            with self._store.transaction() as database:
                made = earlier(database, repeat)
                if made is None:
                    self.insert(database, file_id, owner, filename, purpose, expires_after_s)
                    remember(database, repeat, file_id)
                    made = file_id
        finally:
            if made != file_id:
                self._store.content(file_id).unlink()
        return self.get(owner, made) or {}

    def move_in(self, part: Path) -> str:
        """Give the bytes at `part` the place of a new file, whose row is the caller's to insert; returns its id."""
        file_id = new_id("file-")
        part.rename(self._store.content(file_id))
        folder = os.open(self._store.folder / "files", os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Or the machine might come up again with a row and no bytes.
            os.fsync(folder)
        finally:
            os.close(folder)
        return file_id

    def insert(
        self,
        database: sqlite3.Connection,
        file_id: str,
        owner: str,
        filename: str,
        purpose: str,
        expires_after_s: int | None,
    ) -> None:
        """Write the row of a file that was moved in, as a part of a transaction."""
        created, size = now(), self._store.content(file_id).stat().st_size
        expires = None if expires_after_s is None else created + expires_after_s
        database.execute(
            "INSERT INTO files (id, owner, filename, purpose, bytes, created_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (file_id, owner, filename, purpose, size, created, expires),
        )

    def get(self, owner: str, file_id: str) -> dict[str, Any] | None:
        """OpenAI's object of a file; None if this owner has no such file, or its time is over."""
        row = self.row(owner, file_id)
        return None if row is None else as_object(row)

    def row(self, owner: str, file_id: str) -> sqlite3.Row | None:
        row = self._store.row("SELECT * FROM files WHERE id = ? AND owner = ?", file_id, owner)
        return None if row is None or (row["expires_at"] or now() + 1) <= now() else row

    def count(self, owner: str) -> int:
        row = self._store.row("SELECT count(*) AS number FROM files WHERE owner = ?", owner)
        return int(row["number"]) if row else 0

    def list(self, owner: str, listing: Listing, purpose: str | None) -> dict[str, Any]:
        """A page of them, newest first unless it is asked for otherwise."""
        where = "(expires_at IS NULL OR expires_at > ?)" + (" AND purpose = ?" if purpose else "")
        values = (now(), purpose) if purpose else (now(),)
        return page_of(self._store, "files", owner, listing, as_object, where, values)

    def delete(self, owner: str, file_id: str) -> Literal["deleted", "missing", "in use"]:
        """Remove a file, unless a batch reads or writes it now."""
        with self._store.transaction() as database:
            found = "SELECT batch_id FROM files WHERE id = ? AND owner = ?"
            if (row := database.execute(found, (file_id, owner)).fetchone()) is None:
                return "missing"
            # In one statement with the look at batches: one may just be created of it.
            gone = database.execute(f"DELETE FROM files WHERE id = ? AND {_UNUSED}", (file_id,)).rowcount  # noqa: S608
        if not gone:
            return "in use"
        self._store.content(file_id).unlink(missing_ok=True)
        if row["batch_id"] is not None:
            # Of a batch that failed: the output is read from there.
            self._store.remove_journal(row["batch_id"])
        return "deleted"

    def remove_expired(self) -> int:
        """Remove those whose time is over and that no batch needs; returns how many."""
        rows = self._store.rows(f"SELECT id, owner FROM files WHERE expires_at <= ? AND {_UNUSED}", now())  # noqa: S608
        return sum(self.delete(row["owner"], row["id"]) == "deleted" for row in rows)

    def remove_strays(self, older_than_s: float) -> None:
        """Remove bytes that no row speaks of: a gateway died between the two, or a client went away."""
        for path in (self._store.folder / "files").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime > now() - older_than_s:
                    continue
                known = "SELECT id FROM files WHERE id = ? UNION ALL SELECT id FROM parts WHERE id = ?"
                if self._store.row(known, path.name, path.name) is None:
                    path.unlink()


_UNUSED = (
    f"NOT EXISTS (SELECT 1 FROM batches WHERE status IN {OPEN_BATCH}"  # noqa: S608 (our own words)
    " AND files.id IN (input_file_id, output_file_id))"
)


def as_object(row: sqlite3.Row) -> dict[str, Any]:
    """As OpenAI's API shows a file."""
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "status_details": None,
    }
