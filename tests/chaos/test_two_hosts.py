"""Two hosts in network namespaces of their own: one is cut off and back, and Redis moves to a third and a fourth."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchfleet.status.by_host import Host, by_host
from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import spawn, stop_all
from tests.chaos.namespaces import PORT, Namespaces, why_no_namespaces
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions
from wire.keys import Keys

QUESTIONS = 8_000
STUB = {"STUB_STEP_S": "0.03", "STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "40"}
NAME = "queue.example"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(why_no_namespaces()), reason=f"no network namespaces: {why_no_namespaces()}"),
]


class Cluster(Processes):
    """A fleet whose programs run on hosts: each with a network, a name and a file of other hosts' names of its own."""

    network: Namespaces

    @property
    def names(self) -> Path:
        """Stands for DNS: the `/etc/hosts` of all hosts."""
        return self.folder / "hosts"

    def on(self, host: str, *arguments: str) -> None:
        """Start `batchfleet ARGUMENTS` there; the log has the host's name."""
        place = f'hostname {host} && mount --bind {self.names} /etc/hosts && exec "$@"'
        inside = ["nsenter", f"--net={self.network.place(host)}", "--", "unshare", "--uts", "--mount"]
        command = [*inside, "sh", "-c", place, "sh", sys.executable, "-m", "batchfleet", *arguments]
        self.started[host] = spawn(command, self.environment(**STUB), self.folder / f"{host}.log")


class PlacedServer(EmbeddedServer):
    """A Redis on a host of the network; whoever looks on uses its socket."""

    def __init__(self, folder: Path, network: Namespaces, host: str, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder)
        listening = ["--bind", network.address(host), "--port", str(PORT), "--protected-mode", "no"]
        inside = ["nsenter", f"--net={network.place(host)}", "--"]
        self._command = [*inside, *self._command, *listening, *options]
        self.client = redis.Redis.from_url(self.url, protocol=2)

    def hosts(self) -> dict[str, Host]:
        return {host.name: host for host in by_host(read_status(self.client, Keys()))}

    def serving(self) -> dict[str, int]:
        """Workers that run, by host."""
        return {name: sum(worker.state == "running" for worker in host.workers) for name, host in self.hosts().items()}


def texts_in(answers: Path) -> dict[str, str]:
    """What was answered, by question."""
    return {line["id"]: line["text"] for line in read_answers(answers) if line["status"] == "answered"}


def undisturbed(folder: Path) -> dict[str, str]:
    """What the stub says without a fault: its text depends on the question alone."""
    environ = {f"BATCHFLEET_{name}": value for name, value in STUB.items() if name != "STUB_STEP_S"}
    arguments = ("run", str(folder / "questions.jsonl"), "-o", str(folder / "right.jsonl"), "--engine", "stub")
    done = batchfleet(*arguments, environ=environ)
    assert done.returncode == 0, done.stderr
    return texts_in(folder / "right.jsonl")


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="bf-test-") as made:
        yield Path(made)


@pytest.mark.parametrize("way", ["file", "name"])
def test_each_question_once_though_a_host_is_cut_off_and_redis_moves(way: str, short_folder: Path) -> None:
    """Real `up`s on two hosts, and no process is started again.

    `file`: Redis is moved with its append-only file, as its host is lost, and its address is in a file. `name`: its
    replica takes its place, and a name leads there.
    """
    ids = write_questions(short_folder / "questions.jsonl", QUESTIONS)
    answers, address = short_folder / "answers.jsonl", short_folder / "address"
    url = f"redis+file://{address}" if way == "file" else f"redis://{NAME}:{PORT}/0"
    servers: list[PlacedServer] = []
    with (
        Namespaces(short_folder, ("gpu-a", "gpu-b", "desk", "queue-1", "queue-2")) as network,
        Cluster(url, short_folder) as fleet,
    ):
        fleet.network = network

        def lead_to(host: str) -> None:
            address.write_text(f"{network.address(host)}:{PORT}\n")
            # In place, as it is mounted.
            fleet.names.write_text(f"127.0.0.1 localhost\n{network.address(host)} {NAME}\n")

        try:
            first = PlacedServer(short_folder / "queue-1", network, "queue-1")
            servers.append(first)
            first.start()
            lead_to("queue-1")
            for host, batchers in (("gpu-a", "2"), ("gpu-b", "1")):
                up = ("up", "--engine", "stub", "--workers", "2", "--batchers", batchers)
                fleet.on(host, *up, "--state", str(short_folder / host))
            wait_until(lambda: first.serving() == {"gpu-a": 2, "gpu-b": 2}, "two workers on each host")
            fleet.on("desk", "submit", str(short_folder / "questions.jsonl"), "-o", str(answers), "--model", "stub")
            wait_until(lambda: lines_in(answers) > QUESTIONS // 20, "the run is on")

            network.unplug("gpu-b")
            wait_until(lambda: first.hosts()["gpu-b"].has_vanished, "the host that was cut off is named")
            assert "2 workers with" in first.hosts()["gpu-b"].held()
            network.plug("gpu-b")
            wait_until(lambda: first.serving() == {"gpu-a": 2, "gpu-b": 2}, "it is back")

            second = _lost(first, network, short_folder) if way == "file" else _replaced(first, network, short_folder)
            servers.append(second)
            assert lines_in(answers) < QUESTIONS, "too fast: nothing was left when it became interesting"
            lead_to("queue-2")
            assert fleet.finish("desk") == 0, fleet.log("desk")

            assert second.serving() == {"gpu-a": 2, "gpu-b": 2}
            assert [fleet.started[host].poll() for host in ("gpu-a", "gpu-b")] == [None, None]
            verified = batchfleet("verify", "--redis", second.url)
            assert verified.returncode == 0, verified.stdout
        finally:
            stop_all([server.process for server in servers if server.process is not None], grace_s=10)
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)
    assert texts_in(answers) == undisturbed(short_folder)


def _lost(first: PlacedServer, network: Namespaces, folder: Path) -> PlacedServer:
    """Its host falls silent for good; another starts on its append-only file."""
    assert first.process is not None
    network.hold("queue-1")
    first.process.kill()
    first.process.wait()
    second = PlacedServer(folder / "queue-1", network, "queue-2")
    second.start()
    return second


def _replaced(first: PlacedServer, network: Namespaces, folder: Path) -> PlacedServer:
    """As docs/operations.md has it: a replica that has everything takes over, and the old primary ends for good."""
    source = (network.address("queue-1"), str(PORT))
    second = PlacedServer(folder / "queue-2", network, "queue-2", "--replicaof", *source)
    second.start()
    wait_until(lambda: second.client.info("replication")["master_link_status"] == "up", "the replica has everything")
    first.client.client_pause(600_000, all=False)
    wait_until(lambda: first.client.wait(1, 1000), "the last writes are there too")
    second.client.replicaof("NO", "ONE")
    assert first.process is not None
    network.hold("queue-1")
    first.process.kill()
    first.process.wait()
    return second
