"""The Redis of a controller job: on the network, with a password, its append-only file on the shared folder."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from batchfleet.slurm.run_folder import write
from batchfleet.supervisor.embedded_server import find_server
from batchfleet.supervisor.processes import last_lines, spawn
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import QueueUnusableError

log = logging.getLogger(__name__)

START_S = 60.0
SERVER_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files for TLS; `ca_file` signed the certificate, and those of whoever connects with one."""

    cert_file: str
    key_file: str
    ca_file: str


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """Where the server listens, and with what.

    Attributes:
        folder: Of its append-only file.
        host: Of this machine, as others reach it.
        max_bytes: Memory that it may take; 0 for no limit.
        certificate: None for no TLS.
    """

    folder: Path
    host: str
    port: int
    password: str
    max_bytes: int = 0
    certificate: Certificate | None = None

    def configuration(self) -> str:
        """In Redis' own syntax."""
        address = socket.gethostbyname(self.host)
        tls = self.certificate
        ports = (
            [f"port {self.port}"]
            if tls is None
            else [
                "port 0", f"tls-port {self.port}", f"tls-cert-file {tls.cert_file}", f"tls-key-file {tls.key_file}",
                f"tls-ca-cert-file {tls.ca_file}", "tls-auth-clients no",
            ]
        )  # fmt: skip
        return "\n".join(
            [
                f"bind {' '.join(dict.fromkeys(['127.0.0.1', address]))}", *ports, f'requirepass "{self.password}"',
                f'dir "{self.folder}"', "appendonly yes", "appendfsync everysec", 'save ""', "daemonize no",
                f"maxmemory {self.max_bytes}", "maxmemory-policy noeviction",
            ]
        )  # fmt: skip


def start_server(plan: ServerPlan, address: RedisAddress) -> subprocess.Popen[bytes]:
    """Start it, and wait until it answers, however long it reads its append-only file.

    Raises:
        QueueUnusableError: It ended, or did not answer; with its last words.
    """
    configuration, log = plan.folder / "redis.conf", plan.folder / "redis.log"
    # A file, as everybody on a host can read command lines.
    write(configuration, plan.configuration())
    process = spawn([find_server(), str(configuration)], env=dict(os.environ), log=log)
    deadline = time.monotonic() + START_S
    with connect(address) as client:
        while True:
            try:
                client.ping()
            except redis.BusyLoadingError:
                deadline = time.monotonic() + START_S
            except (redis.RedisError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    process.wait()
                    raise QueueUnusableError(
                        f"Redis did not start on {plan.host}:{plan.port}:\n{last_lines(log)}"
                    ) from None
            else:
                return process
            time.sleep(SERVER_POLL_S)


def free_port(host: str) -> int:
    """One that nobody has now."""
    with socket.socket() as listener:
        listener.bind((socket.gethostbyname(host), 0))
        return int(listener.getsockname()[1])


def own_host(*, by_name: bool) -> str:
    """How other nodes reach this one: by its address, or by its full name where a certificate stands for that.

    Many hosts know themselves by a name of the loopback, where no other node would find them.
    """
    if by_name:
        return socket.getfqdn()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Sends nothing: it only has the kernel choose the interface that leads outside.
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    # Nodes of a cluster may have no way outside.
    with contextlib.suppress(OSError):
        for address in socket.gethostbyname_ex(socket.gethostname())[2]:
            if not address.startswith("127."):
                return address
    log.warning("no address of this host is known but the loopback's, where no other node finds it: give --host")
    return "127.0.0.1"
