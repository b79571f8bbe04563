"""The batches of all owners: their rows, and the steps from `validating` to an end. Each step is one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from batchfleet.gateway.batch_file import FileProblem
from batchfleet.gateway.file_table import OPEN_BATCH, OUTPUT, FileTable
from batchfleet.gateway.list_page import Listing, page_of
from batchfleet.gateway.repeats import Repeat, earlier, forget_old, remember
from batchfleet.gateway.store import Store, new_id, now

TIMES = (
    "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
    "cancelling_at", "cancelled_at",
)  # fmt: skip
KEPT_S = 90 * 86_400
"""How long a batch is known after its window."""
_PLAIN = ("id", "endpoint", "model", "input_file_id", "completion_window", "status", "output_file_id", "error_file_id")


class BatchTable:
    """All batches."""

    def __init__(self, store: Store, files: FileTable) -> None:
        self._store = store
        self._files = files

    def add(
        self,
        owner: str,
        input_file_id: str,
        endpoint: str,
        window: tuple[str, int],
        metadata: dict[str, str] | None,
        output_expires_after_s: int | None,
        *,
        repeat: Repeat | None = None,
    ) -> dict[str, Any] | None:
        """Accept a batch; None if its input file has gone meanwhile.

        Args:
            window: As the client wrote it, and in seconds.
            repeat: If such a request made a batch before, that one is returned.
        """
        batch_id, created = new_id("batch_"), now()
        with self._store.transaction() as database:
            if made := earlier(database, repeat):
                row = database.execute("SELECT * FROM batches WHERE id = ?", (made,)).fetchone()
                return as_object(row)
            added = database.execute(
                "INSERT INTO batches (id, owner, status, endpoint, input_file_id, completion_window, metadata,"
                " output_expires_after, created_at, expires_at)"
                " SELECT ?, owner, 'validating', ?, id, ?, ?, ?, ?, ? FROM files WHERE id = ? AND owner = ?",
                (
                    batch_id,
                    endpoint,
                    window[0],
                    None if metadata is None else orjson.dumps(metadata).decode(),
                    output_expires_after_s,
                    created,
                    created + window[1],
                    input_file_id,
                    owner,
                ),
            ).rowcount
            if added:
                remember(database, repeat, batch_id)
        return self.get(owner, batch_id) if added else None

    def get(self, owner: str, batch_id: str) -> dict[str, Any] | None:
        """OpenAI's object of a batch; None if this owner has none of that id."""
        row = self._store.row("SELECT * FROM batches WHERE id = ? AND owner = ?", batch_id, owner)
        return None if row is None else as_object(row)

    def row(self, batch_id: str) -> sqlite3.Row | None:
        """Whoever's it is."""
        return self._store.row("SELECT * FROM batches WHERE id = ?", batch_id)

    def open_ids(self) -> list[str]:
        """Those without an end, oldest first."""
        query = f"SELECT id FROM batches WHERE status IN {OPEN_BATCH} ORDER BY seq"  # noqa: S608 (our own words)
        return [row["id"] for row in self._store.rows(query)]

    def open_count(self, owner: str) -> int:
        query = f"SELECT count(*) AS number FROM batches WHERE owner = ? AND status IN {OPEN_BATCH}"  # noqa: S608
        row = self._store.row(query, owner)
        return int(row["number"]) if row else 0

    def remove_old(self) -> None:
        """Forget those that ended long ago, whose files have times of their own, and old keys of requests."""
        with self._store.transaction() as database:
            forget_old(database)
            query = f"DELETE FROM batches WHERE status NOT IN {OPEN_BATCH} AND expires_at < ?"  # noqa: S608 (our own words)
            database.execute(query, (now() - KEPT_S,))

    def list(self, owner: str, listing: Listing) -> dict[str, Any]:
        return page_of(self._store, "batches", owner, listing, as_object)

    def cancel(self, owner: str, batch_id: str) -> bool:
        """Ask for its end; whether it had none yet. Whoever runs it hears of it."""
        with self._store.transaction() as database:
            changed = database.execute(
                "UPDATE batches SET status = 'cancelling', cancelling_at = ? WHERE id = ? AND owner = ?"
                " AND status IN ('validating', 'in_progress', 'finalizing')",
                (now(), batch_id, owner),
            ).rowcount
            if changed:
                return True
            return database.execute(
                "SELECT 1 FROM batches WHERE id = ? AND owner = ? AND status = 'cancelling'", (batch_id, owner)
            ).fetchone() is not None  # fmt: skip

    def refuse(self, batch_id: str, problems: Sequence[FileProblem]) -> None:
        """Its input cannot be used."""
        with self._store.transaction() as database:
            database.execute(
                f"UPDATE batches SET status = 'failed', failed_at = ?, errors = ? WHERE id = ? AND status IN {OPEN_BATCH}",  # noqa: E501, S608
                (now(), _as_list(problems), batch_id),
            )

    def begin(self, batch_id: str, model: str, total: int) -> None:
        """It was checked; its output can be read from now on."""
        with self._store.transaction() as database:
            row = database.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()
            output_id = row["output_file_id"] or new_id("file-")
            database.execute(
                "UPDATE batches SET model = ?, total = ?, output_file_id = ?,"
                " in_progress_at = coalesce(in_progress_at, ?),"
                " status = CASE status WHEN 'validating' THEN 'in_progress' ELSE status END WHERE id = ?",
                (model, total, output_id, now(), batch_id),
            )
            database.execute(
                "INSERT OR IGNORE INTO files (id, owner, filename, purpose, bytes, created_at, batch_id)"
                " VALUES (?, ?, ?, ?, 0, ?, ?)",
                (output_id, row["owner"], f"{batch_id}_output.jsonl", OUTPUT, now(), batch_id),
            )

    def count(self, batch_id: str, completed: int, failed: int) -> str:
        """Say how far it is; returns its status. One that gets on has left its bugs behind."""
        with self._store.transaction() as database:
            database.execute(
                "UPDATE batches SET bugs = CASE WHEN ?1 + ?2 > completed + failed THEN 0 ELSE bugs END,"
                " completed = ?1, failed = ?2 WHERE id = ?3",
                (completed, failed, batch_id),
            )
            return str(database.execute("SELECT status FROM batches WHERE id = ?", (batch_id,)).fetchone()["status"])

    def count_bug(self, batch_id: str) -> int:
        """One more try ended with a bug; returns how many have since it last got on."""
        with self._store.transaction() as database:
            database.execute("UPDATE batches SET bugs = bugs + 1 WHERE id = ?", (batch_id,))
            return int(database.execute("SELECT bugs FROM batches WHERE id = ?", (batch_id,)).fetchone()["bugs"])

    def finalize(self, batch_id: str) -> None:
        """All that will come has come."""
        with self._store.transaction() as database:
            database.execute(
                "UPDATE batches SET finalizing_at = coalesce(finalizing_at, ?),"
                " status = CASE status WHEN 'in_progress' THEN 'finalizing' ELSE status END WHERE id = ?",
                (now(), batch_id),
            )

    def end(
        self,
        batch_id: str,
        status: str,
        counts: tuple[int, int],
        usage: dict[str, Any] | None,
        errors_id: str | None,
        *,
        problems: Sequence[FileProblem] = (),
    ) -> None:
        """Give it its end, and its files their sizes. The bytes of both are in place, but for an empty output.

        Args:
            status: `completed`, `expired`, `cancelled` or `failed`.
            counts: Requests completed and failed.
            errors_id: Of the file with the failures, whose row is made here; None if there is none.
            problems: Why it failed.
        """
        with self._store.transaction() as database:
            row = database.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()
            output_id, after_s = row["output_file_id"], row["output_expires_after"]
            expires = None if after_s is None else now() + after_s
            if output_id and self._store.content(output_id).exists():
                size = self._store.content(output_id).stat().st_size
                database.execute("UPDATE files SET bytes = ?, expires_at = ? WHERE id = ?", (size, expires, output_id))
            else:
                database.execute("DELETE FROM files WHERE id = ?", (output_id,))
                output_id = None
            if errors_id is not None:
                name = f"{batch_id}_error.jsonl"
                self._files.insert(database, errors_id, row["owner"], name, OUTPUT, after_s)
            database.execute(
                f"UPDATE batches SET status = ?, {status}_at = ?, output_file_id = ?, error_file_id = ?, usage = ?,"  # noqa: S608 (our own words)
                " errors = ?, completed = ?, failed = ? WHERE id = ?",
                (
                    status,
                    now(),
                    output_id,
                    errors_id,
                    orjson.dumps(usage).decode() if usage else None,
                    _as_list(problems) if problems else None,
                    *counts,
                    batch_id,
                ),
            )


def _as_list(problems: Sequence[FileProblem]) -> str:
    return orjson.dumps({"object": "list", "data": [problem._asdict() for problem in problems]}).decode()


def as_object(row: sqlite3.Row) -> dict[str, Any]:
    """As OpenAI's API shows a batch."""
    parsed = {name: orjson.loads(row[name]) if row[name] else None for name in ("errors", "metadata", "usage")}
    counts = {name: row[name] for name in ("total", "completed", "failed")}
    return {"object": "batch", **{name: row[name] for name in (*_PLAIN, *TIMES)}, **parsed, "request_counts": counts}
