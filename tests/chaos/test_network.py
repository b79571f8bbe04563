"""Both networks of `scripts/chaos` lose what they should lose, tell nobody, and heal."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from tests.chaos.fleet_under_test import PlacedRedis
from tests.chaos.namespaces import enter, why_no_namespaces
from tests.chaos.network import NETWORKS, Network, network_of
from tests.processes import PATIENCE_S

NOTHING_S = 0.3
"""Long enough for a packet; what must not happen at all is waited for no longer."""


class Cut:
    """Two processes' ways to one Redis, which can be cut, and a way around them."""

    def __init__(self, network: Network, server: EmbeddedServer) -> None:
        self.network = network
        self.around = redis.Redis.from_url(server.url, protocol=2)
        self._pools = {name: ThreadPoolExecutor(1, initializer=self._move, initargs=(name,)) for name in ("one", "two")}
        self._clients: dict[str, redis.Redis] = {}

    def ask(self, name: str, *command: str) -> Future[object]:
        """Send a command as that process would, over the one connection that it has."""
        return self._pools[name].submit(self._ask, name, *command)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown()

    def _move(self, name: str) -> None:
        if place := self.network.place(name):
            enter(place)

    def _ask(self, name: str, *command: str) -> object:
        if name not in self._clients:
            once = Retry(NoBackoff(), 0)
            url = self.network.url(name)
            self._clients[name] = redis.Redis.from_url(
                url, protocol=2, socket_timeout=PATIENCE_S, single_connection_client=True, retry=once
            )
        return self._clients[name].execute_command(*command)


@pytest.fixture(params=NETWORKS)
def cut(request: pytest.FixtureRequest) -> Iterator[Cut]:
    """Each kind of network, with both processes connected."""
    if request.param == "namespaces" and (why := why_no_namespaces()):
        pytest.skip(f"no network namespaces: {why}")
    folder = request.getfixturevalue("short_folder")
    server = PlacedRedis(folder)
    with network_of(request.param, folder / "redis.sock", ("one", "two")) as network:
        server.place(network)
        server.start()
        made = Cut(network, server)
        try:
            assert made.ask("one", "PING").result(PATIENCE_S)
            assert made.ask("two", "PING").result(PATIENCE_S)
            yield made
        finally:
            assert server.process is not None
            stop_all([server.process], grace_s=5)
            made.close()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="bf-test-") as made:
        yield Path(made)


def test_what_was_held_up_arrives_late_and_once(cut: Cut) -> None:
    """Nothing passes meanwhile, in either direction, and the other process notices nothing."""
    cut.network.hold("one")
    reply = cut.ask("one", "INCR", "count")
    with pytest.raises(TimeoutError):
        reply.result(NOTHING_S)
    assert cut.around.get("count") is None
    assert cut.ask("two", "PING").result(PATIENCE_S)
    cut.network.release("one")
    assert reply.result(PATIENCE_S) == 1
    assert cut.around.get("count") == b"1"


def test_what_was_held_up_is_lost_with_its_connection(cut: Cut) -> None:
    """The process learns that the connection broke, and Redis never sees the command; a new connection works."""
    cut.network.hold("one")
    reply = cut.ask("one", "INCR", "count")
    with pytest.raises(TimeoutError):
        reply.result(NOTHING_S)
    cut.network.reset("one")
    assert isinstance(reply.exception(PATIENCE_S), redis.ConnectionError)
    assert cut.around.get("count") is None
    assert cut.ask("one", "INCR", "count").result(PATIENCE_S) == 1


def test_requests_arrive_whose_replies_do_not(cut: Cut) -> None:
    """The command is done, and the process does not hear of it before the link is whole again."""
    cut.network.hold_replies("one")
    reply = cut.ask("one", "INCR", "count")
    with pytest.raises(TimeoutError):
        reply.result(NOTHING_S)
    assert cut.around.get("count") == b"1"
    cut.network.release("one")
    assert reply.result(PATIENCE_S) == 1


@pytest.mark.skipif(bool(why_no_namespaces()), reason="no network namespaces here")
def test_namespaces_have_no_name_outside_and_leave_nothing(short_folder: Path) -> None:
    """So fleets that run at the same time do not meet, and a driver that is killed leaves nothing behind."""

    def seen() -> list[str]:
        commands = (["ip", "-oneline", "link"], ["ip", "netns", "list"])
        return [subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands]  # noqa: S603 (fixed words)

    before, threads = seen(), threading.active_count()
    with (
        network_of("namespaces", short_folder / "a", ("one",)) as left,
        network_of("namespaces", short_folder / "b", ("one",)) as right,
    ):
        assert left.url("one") == right.url("one")
        assert left.place("one") != right.place("one")
        assert seen() == before
    assert threading.active_count() == threads
