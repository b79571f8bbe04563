"""The HTTP endpoint that Prometheus scrapes: one thread, one scrape at a time, nothing else served."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from batchfleet.settings.schema import MetricsSettings
from wire.errors import UsageError

PATH = "/metrics"
SILENT_S = 5.0
"""A client that says nothing for this long is hung up on: others wait for it."""


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


class _Server(socketserver.TCPServer):
    """Not http.server's: that one asks the name service who we are."""

    registry: CollectorRegistry
    allow_reuse_address = True
    request_queue_size = 16

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up, or was hung up on, is its own affair."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _bound(host: str, port: int, ports: int) -> _Server:
    last = min(port + ports, 65536) - 1
    for candidate in range(port, last + 1):
        try:
            return (_Server6 if ":" in host else _Server)((host, candidate), _Scrape)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                msg = f"metrics cannot be served at {host}:{candidate}: {error.strerror or error}; see metrics.host and metrics.port"
                raise UsageError(msg) from error
    msg = f"metrics: ports {port} to {last} of {host} are all in use; raise metrics.ports, or set metrics.port: 0 for any free one"
    raise UsageError(msg)
