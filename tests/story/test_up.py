"""A long-running fleet: `up`, `scale`, `down`, and what becomes of it when its parts or its head are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from batchfleet.status.workers import see_workers
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.host_control import HostReporter, known_hosts
from tests.long_running import CLOCKED, Home, up
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions
from tests.redis_servers import free_port
from wire.address import RedisAddress
from wire.connection import connect
from wire.keys import Keys


@pytest.fixture
def home() -> Iterator[Home]:
    """Not tmp_path: the path of a socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="bf-up-"))
    yield Home(folder)
    shutil.rmtree(folder)


@pytest.fixture
def machine(home: Home, tmp_path: Path) -> Iterator[Processes]:
    """Processes that reach that fleet."""
    with Processes(home.url, tmp_path, CLOCKED) as processes:
        yield processes


def test_it_grows_shrinks_and_ends_in_order_under_load(machine: Processes, home: Home, tmp_path: Path) -> None:
    """From one worker to three and back to one: no question is generated twice.

    SIGTERM ends everything with code 0, and leaves the queue.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 20_000)
    answers = tmp_path / "answers.jsonl"
    up(machine, home, LEASES_BATCH_S="100")  # A busy machine is to let none lapse.
    wait_until(lambda: home.running() == 1, "a worker runs")
    machine.submit(tmp_path / "questions.jsonl", answers, "--run", "stays")
    wait_until(lambda: lines_in(answers) > 100, "answers come")

    grown = home.scale(3)
    wait_until(lambda: home.running() == 3, "three workers run")
    shrunk = home.scale(1)

    assert (grown.returncode, shrunk.returncode) == (0, 0), grown.stderr + shrunk.stderr
    assert "3 workers" in grown.stderr
    assert "2 finish what they hold" in shrunk.stderr
    assert len(home.status()["workers"]) == 1
    so_far = lines_in(answers)
    wait_until(lambda: lines_in(answers) > so_far, "the last one continues")
    assert lines_in(answers) < len(ids), "too fast: nothing was left when it became interesting"
    machine.kill("up", signal.SIGTERM)
    assert machine.finish("up") == 0
    lines = read_answers(answers)
    assert len({line["id"] for line in lines}) == len(lines)
    assert {line["attempts"] for line in lines} == {1}
    assert home.processes() == []
    assert list(home.folder.glob("appendonlydir/*")) or list(home.folder.glob("*.aof"))


def test_a_killed_worker_is_started_again_and_a_killed_head_leaves_no_process(
    machine: Processes, home: Home, tmp_path: Path
) -> None:
    """SIGKILL of a worker, of the head, and `up` again on the same folder.

    The same command fetches the rest, each answer once.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 3000)
    answers = tmp_path / "answers.jsonl"
    up(machine, home, "--workers", "2")
    wait_until(lambda: home.running() == 2, "two workers run")
    machine.submit(tmp_path / "questions.jsonl", answers, "--run", "survives")
    wait_until(lambda: lines_in(answers) > 100, "answers come")
    workers = [pid for pid in home.processes() if b"\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: "restarting it" in machine.log("up"), "it is restarted")
    machine.kill("up")
    machine.finish("up")
    wait_until(lambda: home.processes() == [], "nothing outlives the head")
    up(machine, home, "--workers", "2", name="again")

    assert machine.finish("producer") == 0, machine.log("producer")
    assert Counter(line["id"] for line in read_answers(answers)) == Counter(ids)


def test_a_drained_worker_stays_gone(machine: Processes, home: Home) -> None:
    """The fleet is smaller by one, and `scale` makes it larger again."""
    up(machine, home, "--workers", "2")
    wait_until(lambda: home.running() == 2, "two workers run")
    worker = home.status()["workers"][0]["name"]

    drained = batchfleet("drain", worker, "--redis", home.url)
    wait_until(lambda: "was drained and has exited" in machine.log("up"), "it has gone")
    left = [one["name"] for one in home.status()["workers"]]
    grown = home.scale(2)
    wait_until(lambda: home.running() == 2, "two workers run again")

    assert drained.returncode == 0, drained.stderr
    assert len(left) == 1
    assert worker not in left
    assert f"{socket.gethostname()}: 2 workers" in grown.stderr
    assert "restarting it" not in machine.log("up")


def test_there_is_one_fleet_in_a_folder_and_down_stops_it(machine: Processes, home: Home) -> None:
    """A second `up` says what is there; after `down`, `scale` says that nothing is."""
    up(machine, home, "--workers", "0")
    wait_until(lambda: any(batcher["state"] == "leading" for batcher in home.status()["batchers"]), "a batcher leads")
    second = batchfleet("up", "--engine", "stub", "--state", str(home.folder))
    down = batchfleet("down", "--state", str(home.folder))
    after = home.scale(2)

    assert second.returncode == 2
    assert "is already up" in second.stderr
    assert down.returncode == 0, down.stderr
    assert machine.finish("up") == 0
    assert after.returncode == 2
    assert "no `batchfleet up` is running here" in after.stderr


def test_a_wrong_configuration_ends_it_with_one_line(home: Home, tmp_path: Path) -> None:
    """Three GPUs of eight are no slice that vLLM can divide this model into, but nine are none at all.

    Nothing is left running.
    """
    config = tmp_path / "fleet.yaml"
    config.write_text("vllm_args: {tensor_parallel_size: 9}\n")
    environ = {"BATCHFLEET_GPUS": ",".join(f"GPU-{number}" for number in range(8))}

    ended = batchfleet("up", "--engine", "stub", "--config", str(config), "--state", str(home.folder), environ=environ)

    assert ended.returncode == 2
    assert "needs 9 GPUs" in ended.stderr
    assert home.processes() == []


def test_the_one_that_stands_by_goes_first(machine: Processes, home: Home, tmp_path: Path) -> None:
    """Three workers on slices of four of eight GPUs.

    The third stands by, and `scale 2` sends it home, whichever it is.
    """
    config = tmp_path / "fleet.yaml"
    config.write_text("vllm_args: {tensor_parallel_size: 4}\n")
    machine.start(
        "up", "up", "--engine", "stub", "--state", str(home.folder), "--workers", "3", "--config", str(config),
        REDIS_URL="", GPUS=",".join(f"GPU-{number}" for number in range(8)),
    )  # fmt: skip
    wait_until(lambda: home.running() == 2, "two have their slices")
    wait_until(lambda: "1 standby (needs 4 GPUs, 8 of 8 leased)" in machine.log("up"), "the third stands by, visibly")
    before = {worker["name"] for worker in home.status()["workers"] if worker["state"] == "running"}

    assert home.scale(2).returncode == 0

    assert {worker["name"] for worker in home.status()["workers"]} == before


def test_the_one_that_stands_by_takes_over_from_a_killed_one_at_once(
    machine: Processes, home: Home, tmp_path: Path
) -> None:
    """With leases of ten minutes: `up` knows that the process has ended, and ends its lease on the GPUs."""
    config = tmp_path / "fleet.yaml"
    config.write_text("vllm_args: {tensor_parallel_size: 4}\n")
    machine.start(
        "up", "up", "--engine", "stub", "--state", str(home.folder), "--workers", "2", "--config", str(config),
        REDIS_URL="", GPUS="GPU-0,GPU-1,GPU-2,GPU-3", LEASES_BATCH_S="600", LEASES_STALL_S="600",
    )  # fmt: skip
    wait_until(lambda: home.running() == 1, "one has its slice")
    wait_until(lambda: "1 standby" in machine.log("up"), "the other stands by")
    with contextlib.closing(connect(RedisAddress(home.url))) as client:
        known = {worker.state: worker for worker in see_workers(client, Keys())}

        os.kill(known["running"].pid, signal.SIGKILL)

        wait_until(
            lambda: (
                (known["standby"].name, "running") in [(one.name, one.state) for one in see_workers(client, Keys())]
            ),
            "it takes over",
        )


def children(parent: int) -> list[int]:
    """Processes that it has started and that run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text(errors="replace").rpartition(") ")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.parent.name))
    return found


def test_children_that_start_again_during_a_failover_wait_for_the_primary(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path
) -> None:
    """A batcher and a worker are killed while Redis is a replica.

    `up` lives, and works once there is a primary again.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 50)
    state = Path(tempfile.mkdtemp(prefix="bf-up-"))
    with Processes(redis_server.url, tmp_path) as fleet:
        upped = fleet.start("up", "up", "--engine", "stub", "--batchers", "1", "--state", str(state))
        wait_until(lambda: client.zcard(Keys().workers) and client.exists(Keys().leader), "it is up")
        client.replicaof("127.0.0.1", str(free_port()))
        for child in children(upped.pid):
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: fleet.log("up").count("restarting it") >= 2, "they are started again")
        logs = [state / "batcher-1.log", state / "worker-1.log"]
        wait_until(lambda: all("read-only replica" in log.read_text() for log in logs), "they meet a replica")
        assert upped.poll() is None
        client.replicaof("NO", "ONE")
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")

        assert fleet.finish("producer") == 0
    shutil.rmtree(state)

    assert len(read_answers(tmp_path / "answers.jsonl")) == len(ids)


def test_requests_that_no_fleet_makes_are_passed_over(redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """A number of 5 000 digits is none, and no reason for `up` to end with all that it looks after."""
    del redis_server
    host = HostReporter(client, Keys(), 1.0)
    client.hset(Keys().worker("here-1"), mapping={"pid": "9" * 5000, "state": "running"})
    client.zadd(Keys().workers, {"here-1": 1})
    for asked in (b"scale " + b"9" * 5000 + b" t", b"scale 1e3 t", b"scale \xff t", b"stop", b"", b"\xff \xff \xff"):
        client.set(Keys().control(host.name), asked)
        assert host.report({"workers": 1, "leaving": 0}) is None, asked[:20]
    client.hset(Keys().host(host.name), "workers", "9" * 5000)

    assert known_hosts(client, Keys())[0].workers == 0
    assert [worker.pid for worker in see_workers(client, Keys())] == [0]
