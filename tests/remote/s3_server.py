"""moto's S3 server, a process of its own on a loopback port, in the environment that scripts/test-remote makes."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.processes import ROOT, wait_until

SERVER = ROOT / ".venv-s3/bin/moto_server"


class S3Server:
    """One server with a bucket `bucket`, spoken to without credentials, as moto allows."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environ = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def request(self, method: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body."""
        request = urllib.request.Request(f"{self.url}/{path}", data=data, method=method)  # noqa: S310 (ours)
        try:
            with urllib.request.urlopen(request) as response:  # noqa: S310 (ours)
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    def size(self, key: str) -> int | None:
        """Of an object of the bucket, as anybody sees it; None if there is none."""
        status, body = self.request("GET", f"bucket/{key}")
        return len(body) if status == 200 else None

    def uploads(self) -> int:
        """How many multipart uploads are under way."""
        return self.request("GET", "bucket?uploads")[1].count(b"<UploadId>")


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Serves until the end of the block."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (moto)
            [SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output
        )
    try:
        server = S3Server(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with closing(socket.socket()) as tried:
                return tried.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "moto listens")
        assert server.request("PUT", "bucket")[0] == 200
        yield server
    finally:
        process.kill()
        process.wait()
