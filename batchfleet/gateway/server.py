"""The gateway's process: from options to exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import ssl

import uvicorn

from batchfleet.gateway.app import build_app
from batchfleet.gateway.connections import Connections
from batchfleet.gateway.gate import is_loopback
from batchfleet.gateway.options import GatewayOptions, TlsFiles
from batchfleet.settings import to_options
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from wire.connection import opened
from wire.errors import UsageError

log = logging.getLogger("batchfleet.gateway")

BACKLOG = 2048
OTHER_FILES = 256
"""Open files that are no connections of clients: Redis, the data folder, logs."""


def serve_gateway(options: GatewayOptions) -> int:
    """Answer requests until SIGTERM or SIGINT; then end those that are open within `stop_timeout_s`.

    Raises:
        UsageError: It would be open to others without keys; the port is taken; the certificate cannot be used.
        FleetError: Redis does not answer, or no fleet can live there.
    """
    check_exposure(options)
    _raise_file_limit(options.limits.max_connections + OTHER_FILES)
    tls = None if options.tls is None else _tls(options.tls)
    options.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with opened(to_options.redis_address(options.settings), may_evict=False):
        pass
    config = uvicorn.Config(
        build_app(options),
        http=Connections(options.limits).protocol(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(options.limits.stop_timeout_s),
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    # Uvicorn raises the signal again when it is done, and would end by it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with _listen(options) as listening, asyncio.Runner(loop_factory=to_options.event_loop()) as runner:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on %s://%s:%d/v1", "https" if tls else "http", shown, port)
        collect_garbage_rarely()
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))
    return 0


def check_exposure(options: GatewayOptions) -> None:
    """Refuse to be open to others without keys.

    Raises:
        UsageError: It would be.
    """
    if not options.keys.entries and not is_loopback(options.host):
        raise UsageError(
            f"--listen {options.host}:{options.port} can be reached from elsewhere, so it needs keys: "
            "`batchfleet gateway --new-key NAME` makes one for the file that --keys names; or listen on 127.0.0.1"
        )


def _listen(options: GatewayOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}: {error}; give another --listen HOST:PORT"
        ) from None


def _tls(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password rather than a question on the terminal.
        context.load_cert_chain(files.certificate, files.key, lambda: files.password or "")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"--tls-cert {files.certificate} with --tls-key {files.key} cannot be used: {error}; give PEM files that "
            "belong together"
        ) from None
    return context


def _raise_file_limit(wanted: int) -> None:
    """Each connection is an open file, and the usual limit of 1024 is for programs that have few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("open files are limited to %d here; connections end there, before --max-connections", most)
