"""The official SDK, unmodified, in front of a gateway with a fleet behind it: files and batches as OpenAI has them."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from tests.gateways import (
    CHAT,
    a_request,
    as_file,
    begin,
    ids_in,
    lines_of,
    start_gateway,
    wait_for_end,
)
from tests.processes import ROOT, Processes, batchfleet, wait_until

FAST_RECOVERY = {
    "BATCHFLEET_LEASES_HEARTBEAT_S": "0.2",
    "BATCHFLEET_LEASES_LEADER_S": "1",
    "BATCHFLEET_LEASES_BATCH_S": "2",
}


@dataclass
class Gateway:
    """What a test needs of the fleet that all of them share."""

    url: str
    redis_url: str
    data: Path
    client: openai.OpenAI


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway with a stub behind it that refuses what says `refuse-me` and never ends what says `hang-me`."""
    folder = Path(tempfile.mkdtemp(prefix="bf-gateway-"))
    server = EmbeddedServer(folder)
    server.start()
    with Processes(server.url, folder, {"BATCHFLEET_PROCESSING_SCALED_MODELS": "[asleep]"}) as fleet:
        fleet.batcher()
        patient = {"LEASES_STALL_S": "3600", "LEASES_BATCH_S": "3600"}
        images = {"IMAGES_FOLDERS": json.dumps([str(folder / "images")])}
        fleet.worker(STUB_REFUSE_ON="refuse-me", STUB_HANG_ON="hang-me", **patient, **images)
        url = start_gateway(fleet, folder / "data")
        yield Gateway(url, server.url, folder / "data", openai.OpenAI(base_url=url, api_key="none"))
    assert server.process is not None
    stop_all([server.process], grace_s=5)
    shutil.rmtree(folder)


def test_a_batch_goes_from_upload_to_download(gateway: Gateway) -> None:
    """Every custom_id once: answers in the output, failures with a status in the error file; the ledger agrees."""
    client = gateway.client
    good = [a_request(f"r{number}", f"Question {number}", max_tokens=5) for number in range(20)]
    bad = [a_request("r20", "refuse-me"), a_request("r21", max_tokens="many"), a_request("r22", stream=True)]

    file = client.files.create(file=("../in.jsonl", as_file(good + bad)), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"project": "sky"}
    )
    assert (made.status, made.errors, made.expires_at) == ("validating", None, made.created_at + 86_400)
    batch = wait_for_end(client, made.id)

    assert batch.status == "completed", batch
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (23, 20, 3)
    assert batch.metadata == {"project": "sky"}
    assert batch.in_progress_at is not None
    assert batch.finalizing_at is not None
    assert batch.completed_at is not None
    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert ids_in(output) == [f"r{number}" for number in range(20)]
    assert ids_in(errors) == ["r20", "r21", "r22"]
    assert {line["response"]["status_code"] for line in errors} == {400}
    bodies = [line["response"]["body"] for line in output]
    assert {(body["object"], body["choices"][0]["message"]["role"]) for body in bodies} == {
        ("chat.completion", "assistant")
    }
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in bodies) > 0
    assert batch.usage.total_tokens == sum(body["usage"]["total_tokens"] for body in bodies)
    verified = batchfleet("verify", batch.id, "--redis", gateway.redis_url)
    assert verified.returncode == 0, verified.stdout + verified.stderr

    output_id = str(batch.output_file_id)
    assert client.files.retrieve(output_id).bytes == len(client.files.content(output_id).content)
    assert made.id in [one.id for one in client.batches.list(limit=1)]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


async def test_the_async_client_and_uploads_in_parts(gateway: Gateway, tmp_path: Path) -> None:
    """Completions instead of chat; the file comes in several parts."""
    lines = [
        {
            "custom_id": f"c{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "stub", "prompt": "Once"},
        }
        for number in range(50)
    ]
    (tmp_path / "in.jsonl").write_bytes(as_file(lines))
    async with openai.AsyncOpenAI(base_url=gateway.url, api_key="none") as client:
        upload = await client.uploads.upload_file_chunked(
            file=tmp_path / "in.jsonl", mime_type="application/jsonl", purpose="batch", part_size=1000
        )
        assert upload.file is not None
        batch = await client.batches.create(
            input_file_id=upload.file.id, endpoint="/v1/completions", completion_window="24h"
        )
        ended = wait_for_end(gateway.client, batch.id)
        content = await client.files.content(str(ended.output_file_id))
        newest = [one.id async for one in client.batches.list(limit=1)]

    assert content.text.count('"text_completion"') == 50
    assert batch.id in newest


def test_a_batch_may_be_of_embeddings(gateway: Gateway) -> None:
    """A list of vectors for each line, and the tokens that were read."""
    client, body = gateway.client, {"model": "stub", "input": ["one", "two"]}
    lines = [
        {"custom_id": f"e{number}", "method": "POST", "url": "/v1/embeddings", "body": body} for number in range(3)
    ]
    file = client.files.create(file=("in.jsonl", as_file(lines)), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")

    ended = wait_for_end(client, made.id)
    output = lines_of(client, ended.output_file_id)

    assert ids_in(output) == ["e0", "e1", "e2"]
    assert {len(line["response"]["body"]["data"]) for line in output} == {2}
    assert ended.usage is not None
    assert ended.usage.input_tokens > 0


def test_images_are_got_by_the_worker_for_batches_and_online(gateway: Gateway) -> None:
    """The stub sees the size of what the address names; a missing or forbidden image fails its line alone, as a 400."""
    folder = gateway.data.parent / "images"
    folder.mkdir()
    (folder / "page.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 5, 7))
    addresses = [f"file://{folder}/page.gif", f"file://{folder}/none.gif", "file:///etc/passwd", "https://127.0.0.1/x"]
    asked = []
    for number, address in enumerate(addresses):
        line = a_request(f"i{number}", max_tokens=5)
        image = {"type": "image_url", "image_url": {"url": address, "detail": "low"}}
        line["body"]["messages"] = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]
        asked.append(line)

    batch = wait_for_end(gateway.client, begin(gateway.client, as_file(asked)).id)
    online = gateway.client.chat.completions.create(**asked[0]["body"])
    with pytest.raises(openai.BadRequestError, match="message 1, part 2") as refused:
        gateway.client.chat.completions.create(**asked[1]["body"])

    (good,), bad = lines_of(gateway.client, batch.output_file_id), lines_of(gateway.client, batch.error_file_id)
    assert good["response"]["body"]["choices"][0]["message"]["content"].startswith("5x7 ")
    assert (online.choices[0].message.content or "").startswith("5x7 ")
    assert ids_in(bad) == ["i1", "i2", "i3"]
    told = [(line["response"]["status_code"], line["response"]["body"]["error"]["code"]) for line in bad]
    assert told == [(400, "bad_image")] * 3
    assert refused.value.code == "bad_image"


def test_a_bad_file_fails_with_codes_and_line_numbers(gateway: Gateway) -> None:
    """As OpenAI lists them; and so does a model that no worker serves."""
    client = gateway.client
    mixed = begin(client, as_file([a_request("a"), a_request("a")]) + b"{oops\n")
    unserved = begin(client, as_file([{**a_request("a"), "body": {"model": "gpt-4o", "messages": []}}]))
    empty = begin(client, b"\n")

    found = []
    for made in (mixed, unserved, empty):
        batch = wait_for_end(client, made.id)
        assert batch.errors is not None
        found.append((batch.status, [(error.code, error.line) for error in batch.errors.data or []]))

    assert found == [
        ("failed", [("duplicate_custom_id", 2), ("invalid_json_line", 3)]),
        ("failed", [("model_not_found", 1)]),
        ("failed", [("empty_file", None)]),
    ]


def test_a_batch_for_a_model_that_is_scaled_from_zero_waits_for_its_worker(gateway: Gateway) -> None:
    """It is queued while nobody serves its model, and `processing.scaled_models` says that somebody will."""
    client = gateway.client
    batch = begin(client, as_file([{**a_request("a"), "body": {"model": "asleep", "messages": []}}]))

    wait_until(lambda: client.batches.retrieve(batch.id).status == "in_progress", "it is in the queue")
    client.batches.cancel(batch.id)

    assert wait_for_end(client, batch.id).status == "cancelled"


def test_what_is_asked_wrongly_is_refused_at_once(gateway: Gateway) -> None:
    """Each with a status and parameter of OpenAI's, and nothing begins."""
    client = gateway.client
    file = client.files.create(file=("a", b"{}"), purpose="batch")
    other = client.files.create(file=("a", b"{}"), purpose="user_data")
    good: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"input_file_id": "file-../../etc/passwd"}, 404, "input_file_id"),
        ({"input_file_id": other.id}, 400, "input_file_id"),
        ({"endpoint": "/v1/audio"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "9999999d"}, 400, "completion_window"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {str(number): "" for number in range(17)}}, 400, "metadata"),
        ({"extra_body": {"odd": 1}}, 400, "odd"),
    ]
    before = client.batches.list(limit=100).data
    for change, status, param in wrong:
        with pytest.raises(openai.APIStatusError) as raised:
            client.batches.create(**{**good, **change})
        assert (raised.value.status_code, raised.value.param) == (status, param)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_" + "0" * 32)
    assert client.batches.list(limit=100).data == before


def test_a_batch_that_is_cancelled_or_expires_keeps_what_is_done(gateway: Gateway) -> None:
    """Finished lines can be read while it runs; afterwards every custom_id is in one of its files, once."""
    client = gateway.client
    content = as_file([a_request(f"r{number}", max_tokens=3) for number in range(5)] + [a_request("r5", "hang-me")])
    batches = [begin(client, content), begin(client, content)]
    for batch in batches:
        wait_until(lambda batch=batch: done(client, batch.id) == 5, "what can be answered is")  # type: ignore[misc]
        running = client.batches.retrieve(batch.id)
        assert ids_in(lines_of(client, running.output_file_id)) == [f"r{number}" for number in range(5)]
        with pytest.raises(openai.BadRequestError, match="needs this file"):
            client.files.delete(running.input_file_id)

    assert client.batches.cancel(batches[0].id).status == "cancelling"
    with closing(sqlite3.connect(gateway.data / "gateway.sqlite")) as database, database:
        # Its window ends now.
        database.execute("UPDATE batches SET expires_at = 1 WHERE id = ?", (batches[1].id,))

    for batch, status, code in ((batches[0], "cancelled", "batch_cancelled"), (batches[1], "expired", "batch_expired")):
        ended = wait_for_end(client, batch.id)
        assert ended.status == status
        output, errors = lines_of(client, ended.output_file_id), lines_of(client, ended.error_file_id)
        assert ids_in(output) == [f"r{number}" for number in range(5)]
        assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in errors] == [("r5", None, code)]
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_examples_of_the_docs_work(gateway: Gateway, tmp_path: Path) -> None:
    """Each line as it stands in docs/gateway.md, with this gateway's address and the ids that it gave."""
    page = (ROOT / "docs" / "gateway.md").read_text().partition("## Batches\n")[2].partition("\n## ")[0]
    page = page.replace("\\\n", " ")
    lines = [line.strip() for line in page.splitlines() if line.startswith("    curl")]
    (tmp_path / "requests.jsonl").write_bytes(as_file([a_request("r1", max_tokens=3)]))
    ids = {"file-abc123": "", "batch_abc123": "", "file-xyz123": ""}
    for line in lines:
        if "file-xyz123" in line:
            ids["file-xyz123"] = str(wait_for_end(gateway.client, ids["batch_abc123"]).output_file_id)
        for name, real in ids.items():
            line = line.replace(name, real)  # noqa: PLW2901 (it is the same line, filled in)
        command = ["sh", "-c", line.replace("http://127.0.0.1:8080/v1", gateway.url).replace("curl ", "curl -sS ", 1)]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True).stdout  # noqa: S603
        if "/content" in line:
            assert json.loads((tmp_path / "answers.jsonl").read_text())["custom_id"] == "r1"
            continue
        reply = json.loads(said)
        if "/cancel" in line:
            assert reply["error"]["code"] == "invalid_batch_status"
            continue
        assert "error" not in reply, reply
        ids["file-abc123"] = ids["file-abc123"] or reply["id"]
        if reply["object"] == "batch":
            ids["batch_abc123"] = reply["id"]
    assert len(lines) == 6


def done(client: openai.OpenAI, batch_id: str) -> int:
    """Requests of it that were answered."""
    counts = client.batches.retrieve(batch_id).request_counts
    return counts.completed if counts else 0


def test_kills_change_nothing_of_a_batch(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """Kill -9 of both gateways, worker, batcher and Redis in the middle: the same id completes, every custom_id once.

    The gateways share a data folder: one goes on with what the other began.
    """
    content = as_file(a_request(f"r{number}", f"Question {number}") for number in range(400))
    slow = {"STUB_STEP_S": "0.05", "STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "20", "STUB_MAX_NUM_SEQS": "16"}
    with Processes(redis_server.url, tmp_path, FAST_RECOVERY) as fleet:
        fleet.batcher()
        fleet.worker(**slow)
        urls = [start_gateway(fleet, tmp_path / "data", name=name) for name in ("first", "second")]
        first, second = (openai.OpenAI(base_url=url, api_key="none") for url in urls)
        batch = begin(first, content)

        def at_least(number: int, client: openai.OpenAI) -> None:
            wait_until(lambda: done(client, batch.id) >= number, f"{number} are answered")

        at_least(20, first)
        fleet.kill("first")
        at_least(60, second)
        third = openai.OpenAI(base_url=start_gateway(fleet, tmp_path / "data", name="third"), api_key="none")
        fleet.kill("second")
        at_least(100, third)
        fleet.kill("worker")
        fleet.worker(**slow)
        at_least(140, third)
        fleet.kill("batcher")
        fleet.batcher()
        at_least(180, third)
        assert redis_server.process is not None
        redis_server.process.send_signal(signal.SIGKILL)
        redis_server.process.wait()
        redis_server.start()
        ended = wait_for_end(third, batch.id)

        assert ended.status == "completed"
        assert ids_in(lines_of(third, ended.output_file_id)) == [f"r{number}" for number in range(400)]
        assert ended.error_file_id is None
