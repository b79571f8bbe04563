"""A batch that a bug of the gateway stops again and again comes to an end, and what was answered is not lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet.gateway import batch_process
from batchfleet.gateway.batch_process import BatchProcess
from batchfleet.gateway.batch_run import BatchContext, BatchRun
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.store import Store
from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer.options import ProducerOptions, ReadingLimits
from tests.gateways import CHAT, ENDED, a_request, as_file
from tests.processes import Processes, wait_until
from wire.address import RedisAddress

DONE = 3


class BuggyTable(BatchTable):
    """Cannot be told that all answers are there."""

    tries = 0

    def count(self, batch_id: str, completed: int, failed: int) -> str:
        if completed == DONE:
            self.tries += 1
            raise KeyError(completed)
        return super().count(batch_id, completed, failed)


def test_a_bug_that_stays_ends_a_batch_and_keeps_its_answers(
    redis_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many tries it is `failed` with a reason; answers are in its output, and the fleet drops the rest."""
    monkeypatch.setattr(batch_process, "RETRY_S", 0.0)
    store, stopping = Store(tmp_path / "data"), threading.Event()
    files = FileTable(store)
    batches = BuggyTable(store, files)
    address = RedisAddress(redis_server.url)
    context = BatchContext(store, batches, address, ProducerOptions(), ReadingLimits(), stopping)
    lines = [a_request(f"r{number}", max_tokens=3) for number in range(DONE)] + [a_request("r3", "hang-me")]
    batch = made_of(store, files, batches, as_file(lines))
    serving = threading.Thread(target=BatchProcess(context, files).serve)
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker(STUB_HANG_ON="hang-me")
        serving.start()
        try:
            wait_until(lambda: batches.get("", batch["id"])["status"] in ENDED, "it ends")  # type: ignore[index]
        finally:
            stopping.set()
            serving.join()

    ended: dict[str, Any] = batches.get("", batch["id"]) or {}
    output = store.content(ended["output_file_id"]).read_text().splitlines()
    (problem,) = ended["errors"]["data"]
    assert (ended["status"], batches.tries) == ("failed", batch_process.MOST_TRIES)
    assert ended["failed_at"] >= ended["in_progress_at"]
    assert problem["code"] == "internal_error"
    assert "5 times (KeyError)" in problem["message"]
    assert sorted(json.loads(line)["custom_id"] for line in output) == ["r0", "r1", "r2"]
    assert ended["request_counts"] == {"total": 4, "completed": 3, "failed": 0}
    assert list((tmp_path / "data" / "batches").iterdir()) == []
    with redis.Redis.from_url(redis_server.url) as queue:
        assert queue.hexists(f"batchfleet:run:{batch['id']}", "cancelled")
    store.close()


def test_what_a_bug_keeps_from_being_written_is_read_while_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even the files can be written, the batch ends all the same, and its journal stays."""
    monkeypatch.setattr(batch_process, "RETRY_S", 0.0)
    store, stopping = Store(tmp_path / "data"), threading.Event()
    files = FileTable(store)
    batches = BatchTable(store, files)
    context = BatchContext(
        store, batches, RedisAddress("redis://127.0.0.1:1"), ProducerOptions(), ReadingLimits(), stopping
    )
    batch = made_of(store, files, batches, as_file([a_request("r0")]))
    batches.begin(batch["id"], "stub", 1)
    store.journal(batch["id"]).write_text("[]\n")
    monkeypatch.setattr(BatchRun, "run", raise_bug)
    serving = threading.Thread(target=BatchProcess(context, files).serve)
    serving.start()
    try:
        wait_until(lambda: batches.get("", batch["id"])["status"] == "failed", "it ends")  # type: ignore[index]
    finally:
        stopping.set()
        serving.join()

    assert store.journal(batch["id"]).exists()
    output_id = (batches.get("", batch["id"]) or {})["output_file_id"]
    assert files.delete("", output_id) == "deleted"
    assert not store.journal(batch["id"]).exists()
    store.close()


def raise_bug(_: BatchRun) -> None:
    """Instead of the run of a batch."""
    raise KeyError(0)


def made_of(store: Store, files: FileTable, batches: BatchTable, content: bytes) -> dict[str, Any]:
    """A batch of such a file."""
    part = store.content("part-1")
    part.write_bytes(content)
    file = files.add("", "in.jsonl", "batch", part)
    return batches.add("", file["id"], CHAT, ("24h", 86_400), None, None) or {}
