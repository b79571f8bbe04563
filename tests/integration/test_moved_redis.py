"""A Redis that moves: killed at one address, started again on its append-only file at another one."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from batchfleet.slurm.queue_server import ServerPlan, free_port, start_server
from batchfleet.slurm.run_folder import write
from batchfleet.supervisor.processes import stop_all
from tests.processes import Processes, lines_in, read_answers, wait_until, write_questions
from wire.address import RedisAddress


def test_a_fleet_follows_its_redis_to_another_address(tmp_path: Path) -> None:
    """No process is started again, an engine least of all, and each question is answered once."""
    ids = write_questions(tmp_path / "questions.jsonl", 2_000)
    answers, file = tmp_path / "answers.jsonl", tmp_path / "queue-address"
    address = RedisAddress(url=f"redis+file://{file}", password="correct0horse")  # noqa: S106 (the test's own)

    def serve() -> subprocess.Popen[bytes]:
        plan = ServerPlan(tmp_path, "127.0.0.1", free_port("127.0.0.1"), "correct0horse")
        write(file, f"{plan.host}:{plan.port}")
        return start_server(plan, address)

    server = serve()
    try:
        with Processes(address.url, tmp_path, {"BATCHFLEET_REDIS_PASSWORD": "correct0horse"}) as fleet:
            fleet.batcher()
            fleet.worker(STUB_STEP_S="0.01")
            fleet.submit(tmp_path / "questions.jsonl", answers)
            wait_until(lambda: lines_in(answers) > 100, "the run is on")
            server.kill()
            server.wait()
            assert lines_in(answers) < len(ids), "too fast: nothing was left when it became interesting"
            server = serve()

            assert fleet.finish("producer") == 0
            assert [fleet.started[name].poll() for name in ("batcher", "worker")] == [None, None]
    finally:
        stop_all([server], grace_s=10)

    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
