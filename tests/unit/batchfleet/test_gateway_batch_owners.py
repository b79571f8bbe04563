"""Batches over HTTP: nobody sees or stops what is somebody else's."""

from __future__ import annotations

from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware

from batchfleet.gateway import batches, files
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.errors import HANDLERS
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.store import Store
from tests.unit.batchfleet.test_gateway_files import Owners

OTHER = {"X-Owner": "you"}


async def test_another_key_finds_no_batch_and_none_of_its_files(tmp_path: Path) -> None:
    """Somebody else's batch is answered like one that does not exist, and goes on; their files are no input of ours."""
    store = Store(tmp_path / "data")
    table = FileTable(store)
    app = Starlette(
        routes=[*files.routes, *batches.routes], middleware=[Middleware(Owners)], exception_handlers=HANDLERS
    )
    app.state.store, app.state.files, app.state.batches = store, table, BatchTable(store, table)
    table_of_mine = app.state.batches
    part = store.content("part-mine")
    part.write_bytes(b"{}\n")
    file = table.add("me", "in.jsonl", "batch", part)
    asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:
        mine = (await http.post("/v1/batches", json=asked)).json()
        table_of_mine.begin(mine["id"], "stub", 1)
        store.journal(mine["id"]).write_bytes(b"")
        mine = (await http.get(f"/v1/batches/{mine['id']}")).json()
        unknown = "batch_" + "0" * 32
        theirs, nobodys = [
            [
                await http.get(f"/v1/batches/{batch_id}", headers=OTHER),
                await http.post(f"/v1/batches/{batch_id}/cancel", headers=OTHER),
            ]
            for batch_id in (mine["id"], unknown)
        ]
        output = await http.get(f"/v1/files/{mine['output_file_id']}/content", headers=OTHER)
        begun = await http.post("/v1/batches", json=asked, headers=OTHER)
        listed = (await http.get("/v1/batches", headers=OTHER)).json()["data"]
        after = await http.get("/v1/batches", params={"after": mine["id"]}, headers=OTHER)
        still = (await http.get(f"/v1/batches/{mine['id']}")).json()
        own = (await http.post(f"/v1/batches/{mine['id']}/cancel")).json()
    store.close()

    assert [reply.status_code for reply in theirs] == [404, 404]
    assert [reply.text.replace(mine["id"], unknown) for reply in theirs] == [reply.text for reply in nobodys]
    assert (output.status_code, begun.status_code, after.status_code) == (404, 404, 400)
    assert (listed, still["status"], own["status"]) == ([], "in_progress", "cancelling")
