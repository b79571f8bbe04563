"""The server behind the address changes: what was a primary is a replica for a while.

That happens when a proxy or a name in DNS has not followed yet.
"""

from __future__ import annotations

import time
from pathlib import Path

import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, lines_in, read_answers, wait_until, write_questions
from tests.redis_servers import free_port

A_MOMENT_S = 3.0


def test_a_primary_that_is_a_replica_for_a_moment_ends_nobody(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    """An engine takes minutes to boot, and a run may be a night old.

    Batcher, worker and producer wait until they may write again.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 3000)
    answers = tmp_path / "answers.jsonl"

    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker(STUB_STEP_S="0.01")
        fleet.submit(tmp_path / "questions.jsonl", answers)
        wait_until(lambda: lines_in(answers) > 100, "the run is on")
        client.replicaof("127.0.0.1", str(free_port()))
        time.sleep(A_MOMENT_S)
        still_running = {name: process.poll() is None for name, process in fleet.started.items()}
        lines = lines_in(answers)
        client.replicaof("NO", "ONE")

        assert still_running == dict.fromkeys(("batcher", "worker", "producer"), True)
        assert lines < len(ids)
        assert fleet.finish("producer") == 0

    assert sorted(line["id"] for line in read_answers(answers)) == sorted(ids)
