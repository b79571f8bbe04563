"""What Prometheus scrapes is there for it whoever else is connected."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from batchfleet.metrics.exposition import MOST_CLIENTS, expose
from batchfleet.settings.schema import MetricsSettings
from tests.processes import PATIENCE_S


class One(Collector):
    """A single figure."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("answered", "Answers.", value=42)


@pytest.fixture
def address() -> str:
    """HOST:PORT of an endpoint, which lives as long as the tests do."""
    return expose(One(), MetricsSettings(port=0))


def connected(address: str) -> socket.socket:
    """A client that has said nothing yet."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def test_a_slow_client_does_not_keep_others_waiting(address: str) -> None:
    """It has sent half of its request; another is served meanwhile, and then it is too."""
    with connected(address) as slow:
        slow.sendall(b"GET /metrics HTTP/1.0\r\n")

        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as reply:
            assert b"answered 42.0" in reply.read()

        slow.sendall(b"\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.0 200")


def test_clients_are_bounded(address: str) -> None:
    """One more than that is hung up on, and takes no thread."""
    with contextlib.ExitStack() as clients:
        slow = [clients.enter_context(connected(address)) for _ in range(MOST_CLIENTS)]
        for client in slow:
            client.sendall(b"GET /metrics HTTP/1.0\r\n")
        with connected(address) as further:
            assert further.recv(100) == b""
        for client in slow:
            client.sendall(b"\r\n")
            assert client.recv(100).startswith(b"HTTP/1.0 200")
