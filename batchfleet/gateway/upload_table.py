"""Uploads in parts: their rows, and their bytes until they are one file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.store import Store, new_id, now

KEPT_S = 7 * 86_400
"""How long one is known after its end."""
OPEN_S = 3600
"""How long an upload may take from beginning to end, as OpenAI has it."""


class PartsError(Exception):
    """The parts do not make the file that was announced; says why."""


class UploadTable:
    """The uploads of all owners."""

    def __init__(self, store: Store, files: FileTable) -> None:
        self._store = store
        self._files = files

    def add(
        self, owner: str, filename: str, purpose: str, size: int, *, expires_after_s: int | None = None
    ) -> dict[str, Any]:
        created, upload_id = now(), new_id("upload_")
        with self._store.transaction() as database:
            database.execute(
                "INSERT INTO uploads (id, owner, filename, purpose, bytes, created_at, expires_at, status,"
                " file_expires_after) VALUES (?, ?, ?, ?, ?, ?, ?, 'pending', ?)",
                (upload_id, owner, filename, purpose, size, created, created + OPEN_S, expires_after_s),
            )
        return self.as_object(owner, upload_id) or {}

    def row(self, owner: str, upload_id: str) -> sqlite3.Row | None:
        return self._store.row("SELECT * FROM uploads WHERE id = ? AND owner = ?", upload_id, owner)

    def open_count(self, owner: str) -> int:
        row = self._store.row("SELECT count(*) AS number FROM uploads WHERE owner = ? AND status = 'pending'", owner)
        return int(row["number"]) if row else 0

    def parts_of(self, upload_id: str) -> tuple[int, int]:
        """(how many, their bytes)."""
        query = "SELECT count(*) AS number, coalesce(sum(bytes), 0) AS bytes FROM parts WHERE upload_id = ?"
        row = self._store.row(query, upload_id)
        return (int(row["number"]), int(row["bytes"])) if row else (0, 0)

    def add_part(self, upload_id: str, part: Path) -> dict[str, Any] | None:
        """Take in a part, whose bytes are safe on disk and are moved; None if the upload is not open any more."""
        part_id, created, size = new_id("part_"), now(), part.stat().st_size
        part.rename(self._store.content(part_id))
        with self._store.transaction() as database:
            added = database.execute(
                "INSERT INTO parts (id, upload_id, bytes, created_at) SELECT ?, id, ?, ? FROM uploads"
                " WHERE id = ? AND status = 'pending' AND expires_at > ?",
                (part_id, size, created, upload_id, created),
            ).rowcount
        if not added:
            self._store.content(part_id).unlink(missing_ok=True)
            return None
        return {"id": part_id, "object": "upload.part", "created_at": created, "upload_id": upload_id}

    def complete(self, upload: sqlite3.Row, part_ids: Sequence[str]) -> None:
        """Make a file of the parts, in the order given. If the process dies in the middle, it can be done again.

        Raises:
            PartsError: A part is not of this upload, or they have not the announced size.
        """
        sizes = {
            row["id"]: row["bytes"]
            for row in self._store.rows("SELECT id, bytes FROM parts WHERE upload_id = ?", upload["id"])
        }
        if unknown := [part_id for part_id in part_ids if part_id not in sizes]:
            raise PartsError(f"no part {unknown[0][:60]!r} belongs to this upload")
        if len(set(part_ids)) < len(part_ids):
            raise PartsError("a part is named twice")
        if (size := sum(sizes[part_id] for part_id in part_ids)) != upload["bytes"]:
            raise PartsError(f"the parts have {size} bytes together, and {upload['bytes']} were announced")
        whole = self._store.content(new_id("part-"))
        try:
            self._join([self._store.content(part_id) for part_id in part_ids], whole)
            file_id = self._files.move_in(whole)
        finally:
            whole.unlink(missing_ok=True)
        self._end(upload["id"], "completed", (file_id, upload))

    def cancel(self, upload_id: str) -> bool:
        """Whether it was still open."""
        return self._end(upload_id, "cancelled")

    def remove_expired(self) -> None:
        """End those that took too long, and forget those that ended long ago."""
        for row in self._store.rows("SELECT id FROM uploads WHERE status = 'pending' AND expires_at <= ?", now()):
            self._end(row["id"], "expired")
        with self._store.transaction() as database:
            database.execute("DELETE FROM uploads WHERE status != 'pending' AND expires_at < ?", (now() - KEPT_S,))

    def as_object(self, owner: str, upload_id: str) -> dict[str, Any] | None:
        """OpenAI's object of an upload; None if this owner has none of that id."""
        row = self.row(owner, upload_id)
        if row is None:
            return None
        shown = ("id", "bytes", "created_at", "filename", "purpose", "expires_at")
        status = "expired" if row["status"] == "pending" and row["expires_at"] <= now() else row["status"]
        file = self._files.get(owner, row["file_id"]) if row["file_id"] else None
        return {**{name: row[name] for name in shown}, "object": "upload", "status": status, "file": file}

    def _end(self, upload_id: str, status: str, made: tuple[str, sqlite3.Row] | None = None) -> bool:
        """Close an upload that is open, with the row of the file that was made of it; its parts go."""
        file_id = made[0] if made else None
        with self._store.transaction() as database:
            ended = database.execute(
                "UPDATE uploads SET status = ?, file_id = ? WHERE id = ? AND status = 'pending'",
                (status, file_id, upload_id),
            ).rowcount
            parts = database.execute("SELECT id FROM parts WHERE upload_id = ?", (upload_id,)).fetchall()
            if ended:
                database.execute("DELETE FROM parts WHERE upload_id = ?", (upload_id,))
            if ended and made:
                file, row = made
                self._files.insert(
                    database, file, row["owner"], row["filename"], row["purpose"], row["file_expires_after"]
                )
        for row in parts if ended else ():
            self._store.content(row["id"]).unlink(missing_ok=True)
        if made and not ended:
            self._store.content(made[0]).unlink(missing_ok=True)
        return bool(ended)

    def _join(self, parts: Sequence[Path], whole: Path) -> None:
        with whole.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file, 1024 * 1024)
            file.flush()
            os.fsync(file.fileno())
