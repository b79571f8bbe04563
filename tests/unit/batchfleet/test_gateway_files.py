"""Files and uploads over HTTP: what is kept, what is refused, and that nobody sees what is somebody else's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from batchfleet.gateway import files, uploads
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.errors import HANDLERS
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.limits import GatewayLimits
from batchfleet.gateway.store import Store
from batchfleet.gateway.upload_table import UploadTable

LIMITS = GatewayLimits(max_file_bytes=100_000, max_files=20)
BATCH = {"purpose": "batch"}


class Owners:
    """Stands in for the gate: a header says who asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        scope.setdefault("state", {})["owner"] = headers.get(b"x-owner", b"me").decode()
        await self._app(scope, receive, send)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty data folder."""
    return Store(tmp_path / "data")


@pytest.fixture
async def http(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an app that has files and uploads, and nothing else."""
    routes = [*files.routes, *uploads.routes]
    app = Starlette(routes=routes, middleware=[Middleware(Owners)], exception_handlers=HANDLERS)
    table = FileTable(store)
    app.state.store, app.state.files, app.state.uploads = store, table, UploadTable(store, table)
    app.state.options = SimpleNamespace(limits=LIMITS)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def on_disk(store: Store) -> list[str]:
    """Names of all that lies where files are kept."""
    return sorted(path.name for path in (store.folder / "files").iterdir())


async def upload(http: httpx2.AsyncClient, content: bytes = b"{}\n", name: str = "in.jsonl") -> dict[str, Any]:
    """Upload a file that must be taken."""
    reply = await http.post("/v1/files", files={"file": (name, content)}, data=BATCH)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_bytes_come_back_as_they_went_in(http: httpx2.AsyncClient, store: Store) -> None:
    """Boundaries, null bytes and line ends in them included; in one copy on disk, which only this user may read."""
    content = b"\r\n--x\r\n\x00\xff" * 5000

    file = await upload(http, content)
    reply = await http.get(f"/v1/files/{file['id']}/content")

    assert reply.content == content
    assert (file["bytes"], file["filename"], file["purpose"]) == (len(content), "in.jsonl", "batch")
    assert on_disk(store) == [file["id"]]
    assert store.content(file["id"]).stat().st_mode & 0o077 == 0
    assert (await http.delete(f"/v1/files/{file['id']}")).json()["deleted"] is True
    assert on_disk(store) == []


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "..\\..\\passwd", "a\x00b\n/pass\x1b[31mwd", "..", "x" * 2000]
)
async def test_a_file_name_is_a_label_and_no_path(http: httpx2.AsyncClient, store: Store, name: str) -> None:
    """The last part of it is shown, short and printable; on disk it is nowhere."""
    file = await upload(http, name=name)

    assert "/" not in file["filename"]
    assert "\\" not in file["filename"]
    assert file["filename"].isprintable()
    assert 0 < len(file["filename"]) <= 255
    assert on_disk(store) == [file["id"]]


async def test_ids_are_looked_up_and_never_opened(http: httpx2.AsyncClient, store: Store) -> None:
    """Whatever stands in the place of an id, it is that of no file."""
    (store.folder / "secret").write_text("secret")
    await upload(http)
    for odd in (
        "..%2Fsecret",
        "%2e%2e%2fsecret",
        "..%2Fgateway.sqlite",
        "%00",
        "'%20OR%201=1--",
        "file-" + "0" * 32,
        "x" * 9000,
    ):
        for path in (f"/v1/files/{odd}", f"/v1/files/{odd}/content"):
            reply = await http.get(path)
            assert reply.status_code == 404, path
            assert "secret" not in reply.json()["error"].get("code", "")
        assert (await http.delete(f"/v1/files/{odd}")).status_code == 404
        assert (await http.get(f"/v1/files?after={odd}")).status_code == 400
    assert (store.folder / "secret").read_text() == "secret"


async def test_another_key_finds_nothing(http: httpx2.AsyncClient, store: Store) -> None:
    """Somebody else's file, upload and part are answered like those that do not exist."""
    file = await upload(http)
    other = {"X-Owner": "you"}
    begun = (await http.post("/v1/uploads", json={"filename": "a", "bytes": 3, **BATCH})).json()
    part = (await http.post(f"/v1/uploads/{begun['id']}/parts", files={"data": b"abc"})).json()
    theirs = (await http.post("/v1/uploads", json={"filename": "a", "bytes": 3, **BATCH}, headers=other)).json()

    replies = [
        await http.get(f"/v1/files/{file['id']}", headers=other),
        await http.get(f"/v1/files/{file['id']}/content", headers=other),
        await http.delete(f"/v1/files/{file['id']}", headers=other),
        await http.post(f"/v1/uploads/{begun['id']}/cancel", headers=other),
        await http.post(f"/v1/uploads/{begun['id']}/parts", files={"data": b"abc"}, headers=other),
        await http.post(f"/v1/uploads/{begun['id']}/complete", json={"part_ids": [part["id"]]}, headers=other),
    ]

    assert [reply.status_code for reply in replies] == [404] * 6
    assert (await http.get("/v1/files", headers=other)).json()["data"] == []
    taken = await http.post(f"/v1/uploads/{theirs['id']}/complete", json={"part_ids": [part["id"]]}, headers=other)
    assert taken.status_code == 400
    assert on_disk(store) == sorted([file["id"], part["id"]])


FORM = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("multipart/form-data", FORM + FILE + b"--b--\r\n", 400, "invalid_form"),
        ("application/json", b"{}", 400, "invalid_form"),
        ("multipart/form-data; boundary=" + "b" * 300, b"", 400, "invalid_form"),
        ("multipart/form-data; boundary=b", b"", 400, "invalid_form"),
        ("multipart/form-data; boundary=b", b"\x00" * 5000, 400, "invalid_form"),
        ("multipart/form-data; boundary=b", FORM + FILE, 400, "invalid_form"),
        ("multipart/form-data; boundary=b", FORM + FILE + FILE + b"--b--\r\n", 400, "invalid_form"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", 400, "invalid_form"),
        ("multipart/form-data; boundary=b", FORM + b"--b--\r\n", 400, "missing_required_parameter"),
        ("multipart/form-data; boundary=b", FILE + b"--b--\r\n", 400, "missing_required_parameter"),
        (
            "multipart/form-data; boundary=b",
            FORM.replace(b"batch", b"evil") + FILE + b"--b--\r\n",
            400,
            "invalid_value",
        ),
        (
            "multipart/form-data; boundary=b",
            FORM.replace(b"batch", b"b" * 70_000) + b"--b--\r\n",
            413,
            "body_too_large",
        ),
        (
            "multipart/form-data; boundary=b",
            FORM + FILE.replace(b"{}", b"x" * 100_001) + b"--b--\r\n",
            413,
            "file_too_large",
        ),
    ],
)
async def test_a_bad_form_is_one_clear_error_and_leaves_nothing(
    http: httpx2.AsyncClient, store: Store, kind: str, body: bytes, status: int, code: str
) -> None:
    """Cut off, too large, without its parts, or no form at all."""
    reply = await http.post("/v1/files", content=body, headers={"Content-Type": kind})

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    assert on_disk(store) == []
    assert (await http.get("/v1/files")).json()["data"] == []


async def test_a_list_is_read_page_by_page(http: httpx2.AsyncClient) -> None:
    """Newest first, or as `order` says; `purpose` filters, and a page that is asked for wrongly is refused."""
    ids = [(await upload(http))["id"] for _ in range(5)]
    await http.post("/v1/files", files={"file": b"x"}, data={"purpose": "user_data"})

    first = (await http.get("/v1/files", params={"limit": 3, "purpose": "batch"})).json()
    rest = (await http.get("/v1/files", params={"limit": 3, "purpose": "batch", "after": first["last_id"]})).json()
    oldest = (await http.get("/v1/files", params={"order": "asc", "limit": 1})).json()

    assert [file["id"] for file in first["data"] + rest["data"]] == ids[::-1]
    assert (first["has_more"], rest["has_more"], oldest["first_id"]) == (True, False, ids[0])
    for wrong in ("limit=0", "limit=x", "limit=-1", "limit=99999", "order=up"):
        assert (await http.get(f"/v1/files?{wrong}")).status_code == 400


async def test_a_file_whose_time_is_over_is_gone_unless_a_batch_needs_it(
    http: httpx2.AsyncClient, store: Store
) -> None:
    """For clients at once, and from the disk with the next cleaning; so are bytes that belong to nothing."""
    for_long = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    reply = (await http.post("/v1/files", files={"file": b"{}"}, data=for_long)).json()
    assert reply["expires_at"] == reply["created_at"] + 3600
    for wrong in ({"expires_after[seconds]": "5"}, {"expires_after[seconds]": "x"}, {"expires_after[anchor]": "now"}):
        assert (await http.post("/v1/files", files={"file": b"{}"}, data={**for_long, **wrong})).status_code == 400
    needed, table = await upload(http), FileTable(store)
    batches = BatchTable(store, table)
    batch = batches.add("me", needed["id"], "/v1/completions", ("24h", 86_400), None, None)
    assert batch is not None
    with store.transaction() as database:
        database.execute("UPDATE files SET expires_at = 1")
    stray = store.content("part-stray")
    stray.write_bytes(b"x")
    os.utime(stray, (0, 0))

    assert (await http.get(f"/v1/files/{reply['id']}")).status_code == 404
    assert table.remove_expired() == 1
    table.remove_strays(older_than_s=60)

    assert on_disk(store) == [needed["id"]]
    assert table.delete("me", needed["id"]) == "in use"
    batches.end(batch["id"], "cancelled", (0, 0), None, None)
    assert table.remove_expired() == 1
    batches.remove_old()
    assert batches.get("me", batch["id"]) is not None
    with store.transaction() as database:
        database.execute("UPDATE batches SET expires_at = 1")
    batches.remove_old()
    assert batches.get("me", batch["id"]) is None


async def test_more_files_than_a_key_may_have_are_refused(http: httpx2.AsyncClient) -> None:
    """With the number; and another key still has room."""
    for _ in range(LIMITS.max_files):
        await upload(http)
    reply = await http.post("/v1/files", files={"file": b"x"}, data=BATCH)

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_many_files")
    assert (
        await http.post("/v1/files", files={"file": b"x"}, data=BATCH, headers={"X-Owner": "you"})
    ).status_code == 200


async def test_parts_become_one_file_in_the_order_asked_for(http: httpx2.AsyncClient, store: Store) -> None:
    """Asked again, whose reply was lost, it says the same; parts that do not add up are refused and can be mended."""
    begun = (await http.post("/v1/uploads", json={"filename": "../a.jsonl", "bytes": 6, **BATCH})).json()
    parts = []
    for piece in (b"def", b"abc", b"lost"):
        reply = await http.post(f"/v1/uploads/{begun['id']}/parts", files={"data": piece})
        parts.append(reply.json()["id"])
    complete = f"/v1/uploads/{begun['id']}/complete"

    for wrong in ([parts[0]], [parts[0], parts[0]], [parts[0], "part_x"], [], "x"):
        assert (await http.post(complete, json={"part_ids": wrong})).status_code == 400
    done = (await http.post(complete, json={"part_ids": [parts[1], parts[0]]})).json()
    again = (await http.post(complete, json={"part_ids": [parts[1], parts[0]]})).json()

    assert (done["status"], done["file"]["filename"], again) == ("completed", "a.jsonl", done)
    assert (await http.get(f"/v1/files/{done['file']['id']}/content")).content == b"abcdef"
    assert on_disk(store) == [done["file"]["id"]]
    assert (await http.post(f"/v1/uploads/{begun['id']}/parts", files={"data": b"x"})).status_code == 400
    assert (await http.post(f"/v1/uploads/{begun['id']}/cancel")).status_code == 400


async def test_an_upload_holds_no_more_than_it_announced(http: httpx2.AsyncClient, store: Store) -> None:
    """Twice that, as parts may be sent again; cancelled, nothing of it is left."""
    begun = (await http.post("/v1/uploads", json={"filename": "a", "bytes": 4, **BATCH})).json()
    path = f"/v1/uploads/{begun['id']}/parts"
    assert (await http.post(path, files={"data": b"123456"})).status_code == 200
    assert (await http.post(path, files={"data": b"123"})).status_code == 413
    assert (await http.post(path, files={"data": b"12"})).status_code == 200
    assert (await http.post(path, files={"data": b"1"})).json()["error"]["code"] == "too_many_parts"

    assert (await http.post(f"/v1/uploads/{begun['id']}/cancel")).json()["status"] == "cancelled"
    assert on_disk(store) == []
    for wrong in ({"bytes": 0}, {"bytes": 10**12}, {"bytes": "4"}, {"filename": ""}, {"purpose": "evil"}, {"odd": 1}):
        body = {"filename": "a", "bytes": 4, **BATCH, **wrong}
        assert (await http.post("/v1/uploads", json=body)).status_code == 400
