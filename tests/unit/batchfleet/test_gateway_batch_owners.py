"""Batches over HTTP: nobody sees or stops what is somebody else's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware

from batchfleet.gateway import batches, files
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.errors import HANDLERS
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.limits import GatewayLimits
from batchfleet.gateway.store import Store
from tests.unit.batchfleet.test_gateway_files import Owners

OTHER = {"X-Owner": "you"}


def app_of(store: Store) -> Starlette:
    """Files and batches, and nothing that runs them."""
    app = Starlette(
        routes=[*files.routes, *batches.routes], middleware=[Middleware(Owners)], exception_handlers=HANDLERS
    )
    table = FileTable(store)
    app.state.store, app.state.files, app.state.batches = store, table, BatchTable(store, table)
    app.state.options = SimpleNamespace(limits=GatewayLimits())
    return app


async def test_another_key_finds_no_batch_and_none_of_its_files(tmp_path: Path) -> None:
    """Somebody else's batch is answered like one that does not exist, and goes on; their files are no input of ours."""
    store = Store(tmp_path / "data")
    app = app_of(store)
    table = app.state.files
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


async def test_a_request_that_comes_again_makes_nothing_new(tmp_path: Path) -> None:
    """With the same key of the same owner: the same file and batch. For something else the key is refused."""
    store = Store(tmp_path / "data")
    app = app_of(store)
    once = {"Idempotency-Key": "k1"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as http:

        async def upload(content: bytes, **headers: str) -> httpx2.Response:
            return await http.post("/v1/files", files={"file": content}, data={"purpose": "batch"}, headers=headers)

        uploads = [await upload(b"{}\n", **once), await upload(b"{}\n", **once), await upload(b"{}\n", **once, **OTHER)]
        first, again, others = (reply.json()["id"] for reply in uploads)
        asked = {"input_file_id": first, "endpoint": "/v1/completions", "completion_window": "24h"}
        made = [(await http.post("/v1/batches", json=asked, headers=once)).json()["id"] for _ in range(2)]
        new = (await http.post("/v1/batches", json=asked)).json()["id"]
        other = await http.post("/v1/batches", json={**asked, "completion_window": "1h"}, headers=once)
        larger, empty = await upload(b"{}\n{}\n", **once), await upload(b"{}\n", **{"Idempotency-Key": ""})
        await http.delete(f"/v1/files/{others}", headers=OTHER)
        renewed = (await upload(b"{}\n", **once, **OTHER)).json()["id"]

    assert first == again
    assert len({first, others, renewed}) == 3
    assert made[0] == made[1] != new
    assert [reply.json()["error"]["code"] for reply in (other, larger, empty)] == [
        "idempotency_key_reused",
        "idempotency_key_reused",
        "invalid_idempotency_key",
    ]
    assert len(list((tmp_path / "data" / "files").iterdir())) == 2
    store.close()
