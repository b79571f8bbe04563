"""A batch of 100 000 lines, with everything killed once in the middle. Prints how long it took, and memory."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.gateways import a_request, as_file, begin, ids_in, lines_of, start_gateway, wait_for_end, wait_for_gateway
from tests.processes import Processes

LINES = 100_000
MOST_MIB = 400
"""Of a gateway, and of its process of batches. More lines need hardly more: a bit and a few bytes each."""

LOOK_S = 2.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def peak_mib(pid: int) -> Iterator[tuple[str, float]]:
    """Most memory that a process and its children held so far, in MiB, by command line."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = (status.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(pid) in (fields["Pid"], fields["PPid"]) and "VmHWM" in fields:
            yield command[2].decode(), int(fields["VmHWM"].split()[0]) / 1024


def test_a_large_batch_survives_the_death_of_everything(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """Kill -9 of gateway, worker, batcher and Redis: the same id completes, every custom_id once, in bounded memory."""
    content = as_file(a_request(f"r{number}", f"Question {number}: why is the sky blue?") for number in range(LINES))
    data = tmp_path / "data"
    peaks: dict[str, float] = {}
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker()
        url = start_gateway(fleet, data)
        client = openai.OpenAI(base_url=url, api_key="none")
        began = time.monotonic()
        batch = begin(client, content)

        def reaches(share: float) -> None:
            answered = 0
            while answered < share * LINES:
                # Rarely: whoever looks takes the time of whoever works.
                time.sleep(LOOK_S)
                for name, mib in peak_mib(fleet.started["gateway"].pid):
                    peaks[name] = max(peaks.get(name, 0.0), mib)
                counts = client.batches.retrieve(batch.id).request_counts
                answered = counts.completed if counts else 0
            print(f"{share:.0%} after {time.monotonic() - began:.0f} s", flush=True)

        reaches(0.1)
        fleet.kill("gateway")
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        fleet.start("gateway", "gateway", "--listen", f"127.0.0.1:{port}", "--data", str(data))
        wait_for_gateway(fleet, port)
        reaches(0.3)
        fleet.kill("worker")
        fleet.worker()
        reaches(0.5)
        fleet.kill("batcher")
        fleet.batcher()
        reaches(0.7)
        assert redis_server.process is not None
        redis_server.process.send_signal(signal.SIGKILL)
        redis_server.process.wait()
        redis_server.start()
        reaches(1.0)
        ended = wait_for_end(client, batch.id)
        print(f"{ended.status} after {time.monotonic() - began:.0f} s; most memory, in MiB: {peaks}")

        assert ended.status == "completed"
        assert ids_in(lines_of(client, ended.output_file_id)) == [f"r{number}" for number in range(LINES)]
        assert ended.error_file_id is None
        assert max(peaks.values()) < MOST_MIB
