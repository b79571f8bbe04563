"""Whatever is written into Redis is never executed, and the fleet keeps answering.

It ends as a dead letter or is passed over.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchfleet.admin.dead_letters import DeadLetters
from batchfleet.cli.main import main
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from tests.hostile.attacks import ATTACKS, KEYS, TYPES, Attack
from tests.processes import PATIENCE_S, Processes, read_answers, wait_until, write_questions

QUICK = {"BATCHFLEET_LEASES_HEARTBEAT_S": "0.2", "BATCHFLEET_LEASES_LEADER_S": "1", "BATCHFLEET_LEASES_BATCH_S": "2"}


MARKER = "executed"


class Target:
    """A fleet with a batcher and a worker, which are the same to the end: none of them may die of an attack."""

    def __init__(self, fleet: Processes, client: redis.Redis) -> None:
        self.fleet = fleet
        self.client = client
        self.runs = 0
        self.marker = fleet.folder / MARKER

    def answers_a_run(self) -> None:
        """Submit a few questions, and have an answer to each."""
        self.runs += 1
        questions, answers = self.fleet.folder / f"{self.runs}.jsonl", self.fleet.folder / f"{self.runs}.out"
        ids = write_questions(questions, 12, prefix=f"r{self.runs}-")
        assert (
            main(
                ["submit", str(questions), "-o", str(answers), "--model", "stub", "--redis", self.fleet.url, "--quiet"]
            )
            == 0
        )
        assert sorted(line["id"] for line in read_answers(answers)) == sorted(ids)

    def reasons(self) -> list[str]:
        """Of all dead letters; none while something else is in their place."""
        with contextlib.suppress(redis.ResponseError):
            return [letter.reason for letter in DeadLetters(self.client, KEYS).all()]
        return []

    def is_unhurt(self) -> bool:
        return all(process.poll() is None for process in self.fleet.started.values())


def fleet_in(folder: Path, server: EmbeddedServer) -> Processes:
    """Processes in which importing what attacks name leaves the marker."""
    return Processes(server.url, folder, {**QUICK, "HOSTILE_MARKER": str(folder / MARKER)})


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """One fleet for all attacks."""
    folder = Path(tempfile.mkdtemp(prefix="bf-test-"))
    server = EmbeddedServer(folder)
    server.start()
    with (
        redis.Redis.from_url(server.url, protocol=2, socket_timeout=PATIENCE_S) as client,
        fleet_in(folder, server) as fleet,
    ):
        fleet.batcher()
        fleet.worker()
        made = Target(fleet, client)
        made.answers_a_run()
        yield made
    assert server.process is not None
    stop_all([server.process], grace_s=5)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer of these tests runs in this process."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


def name_of(attack: Attack) -> str:
    """Where and what, for the list of tests."""
    return f"{attack.where}-{attack.what}".replace(" ", "_")


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
def test_an_attack_does_nothing_but_what_is_written_down(target: Target, attack: Attack) -> None:
    """No side effect, the reason among the dead letters, a run answered, and nobody died of it."""
    before = len(target.reasons())

    attack.write(target.client, target.marker)
    target.answers_a_run()

    if attack.reason:
        wait_until(
            lambda: any(attack.reason in reason for reason in target.reasons()[before:]),
            f"a dead letter: {attack.reason}",
        )
    assert not target.marker.exists()
    assert target.is_unhurt(), target.fleet.log("batcher")[-2000:] + target.fleet.log("worker")[-2000:]
    for command in (["status"], ["dead", "list"]):
        assert main([*command, "--redis", target.fleet.url]) == 0
    target.client.delete(KEYS.dead)


def test_every_key_at_once(target: Target) -> None:
    """With something of a wrong type under every key of the fleet, it comes back by itself."""
    for attack in sorted(TYPES, key=lambda attack: attack.where == "workers"):
        attack.write(target.client, target.marker)

    target.answers_a_run()

    assert target.is_unhurt()
