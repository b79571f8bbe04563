"""A Redis that would drop keys when it is full is no place for a fleet, and whoever starts one there is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from batchfleet.cli.main import main
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import write_questions


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_an_evicting_policy_is_refused_at_start(
    client: redis.Redis,
    redis_server: EmbeddedServer,
    tmp_path: Path,
    policy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By batchers, workers and producers, with exit code 2 and what to change; who only looks may look."""
    client.config_set("maxmemory-policy", policy)
    write_questions(tmp_path / "questions.jsonl", 3)
    asking = [str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl"), "--model", "stub"]

    for command in (
        ["batcher"],
        ["worker", "--engine", "stub"],
        ["submit", *asking],
        ["run", *asking, "--engine", "stub"],
    ):
        assert main([*command, "--redis", redis_server.url]) == 2, command
        said = capsys.readouterr().err
        assert f"(maxmemory-policy {policy}); set it to noeviction" in said, command

    assert main(["status", "--redis", redis_server.url]) == 0
    assert f"maxmemory-policy {policy}" in capsys.readouterr().out
