"""The gateway's disk is full, really: clients are told so, and all goes on when there is room."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from batchfleet.gateway import files, uploads
from batchfleet.gateway.errors import HANDLERS
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.limits import GatewayLimits
from batchfleet.gateway.store import Store
from batchfleet.gateway.upload_table import UploadTable
from tests.processes import ROOT
from tests.tiny_disk import on_tiny_disk
from tests.unit.batchfleet.test_gateway_files import Owners

DISK = "1m"
BATCH = {"purpose": "batch"}
TOO_MUCH, LITTLE = b"x" * 2_000_000, b"{}\n"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """To files, parts and whatever is written down of them: 507, no bytes are left behind, and with room all works."""
    script = f"from {__name__} import fill; fill({str(tmp_path)!r})"

    done = subprocess.run(  # noqa: S603 (our own command)
        on_tiny_disk(tmp_path, DISK, [sys.executable, "-c", script]),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_transaction_that_the_database_ended_says_why(tmp_path: Path) -> None:
    """SQLite ends the one that finds the disk full; the error is that, and the next transaction works."""
    store = Store(tmp_path / "data")
    most = store.rows("PRAGMA max_page_count")[0][0]
    store.rows("PRAGMA max_page_count = 1")
    insert = "INSERT INTO files (id, owner, filename, purpose, bytes, created_at) VALUES ('f', 'me', ?, 'batch', 0, 0)"

    with pytest.raises(sqlite3.OperationalError, match="disk is full"), store.transaction() as database:
        database.execute(insert, ("x" * 1_000_000,))
    store.rows(f"PRAGMA max_page_count = {most}")
    with store.transaction() as database:
        database.execute(insert, ("x" * 1_000_000,))

    assert [row["id"] for row in store.rows("SELECT id FROM files")] == ["f"]
    store.close()


def fill(folder: str) -> None:
    """What the test does, where the disk is tiny."""
    asyncio.run(_fill(Path(folder)))


async def _fill(folder: Path) -> None:
    store = Store(folder / "data")
    app = Starlette(
        routes=[*files.routes, *uploads.routes], middleware=[Middleware(Owners)], exception_handlers=HANDLERS
    )
    table = FileTable(store)
    app.state.store, app.state.files, app.state.uploads = store, table, UploadTable(store, table)
    app.state.options = SimpleNamespace(limits=GatewayLimits(max_file_bytes=10_000_000, max_files=1000))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    kept = folder / "data" / "files"
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        begun = (await http.post("/v1/uploads", json={"filename": "a", "bytes": 3_000_000, **BATCH})).json()
        parts = f"/v1/uploads/{begun['id']}/parts"
        _ensure_full(await http.post("/v1/files", files={"file": TOO_MUCH}, data=BATCH))
        _ensure_full(await http.post(parts, files={"data": TOO_MUCH}))
        assert list(kept.iterdir()) == []

        filler = _fill_up(folder)
        _ensure_full(await http.post("/v1/files", files={"file": LITTLE}, data=BATCH))
        refused = 0
        for _ in range(100):
            # Rows alone: what is written down goes to a database that cannot grow.
            reply = await http.post("/v1/uploads", json={"filename": "b" * 200, "bytes": 3, **BATCH})
            if reply.status_code != 200:
                _ensure_full(reply)
                refused += 1
        assert refused
        filler.unlink()

        assert (await http.post("/v1/files", files={"file": LITTLE}, data=BATCH)).status_code == 200
        assert (await http.post(parts, files={"data": LITTLE})).status_code == 200
        assert len(list(kept.iterdir())) == 2
    store.close()


def _ensure_full(reply: httpx2.Response) -> None:
    assert (reply.status_code, reply.json()["error"]["code"]) == (507, "disk_full"), reply.text


def _fill_up(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler
