"""The HTTP endpoint that Prometheus scrapes: some scrapes at a time, nothing else served."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from batchfleet.settings.schema import MetricsSettings
from wire.errors import UsageError

PATH = "/metrics"
SILENT_S = 5.0
"""A client that says nothing for this long is hung up on."""
MOST_CLIENTS = 16
"""At once; further ones are hung up on."""


def expose(collector: Collector, settings: MetricsSettings) -> str:
    """Serve `collector` and the figures of this process at the first free port of the settings, until the process ends.

    Returns:
        HOST:PORT; empty if the settings name no port.

    Raises:
        UsageError: No port is free, or the host is none of this machine's.
    """
    if settings.port is None:
        return ""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    server = _bound(settings.host, settings.port, settings.ports if settings.port else 1)
    server.registry = registry
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{server.server_address[1]}"


class _Scrape(BaseHTTPRequestHandler):
    timeout = SILENT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, f"only {PATH} is here")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name for it)
        """Say nothing: a scrape every few seconds is no news."""


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each client, so that none waits for another.

    Not http.server's: that one asks the name service who we are.
    """

    registry: CollectorRegistry
    allow_reuse_address = True
    request_queue_size = MOST_CLIENTS
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Scrape)
        self._places = threading.Semaphore(MOST_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as the library has it)
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (as the library has it)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up, or was hung up on, is its own affair."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _bound(host: str, port: int, ports: int) -> _Server:
    last = min(port + ports, 65536) - 1
    for candidate in range(port, last + 1):
        try:
            return (_Server6 if ":" in host else _Server)((host, candidate))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"metrics cannot be served at {host}:{candidate}: {error.strerror or error}; see metrics.host and "
                    "metrics.port"
                ) from error
    raise UsageError(
        f"metrics: ports {port} to {last} of {host} are all in use; raise metrics.ports, or set metrics.port: 0 for "
        "any free one"
    )
