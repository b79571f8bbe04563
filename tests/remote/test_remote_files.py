"""Files on a real S3 server. Run by scripts/test-remote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.remote.download import download_all
from producer.remote.upload import exists, upload
from tests.remote.s3_server import SERVER, s3_server
from wire.errors import UsageError

pytest.importorskip("obstore", reason="scripts/test-remote installs it")
pytestmark = [
    pytest.mark.skipif(not SERVER.exists(), reason="scripts/test-remote makes the environment of moto"),
    pytest.mark.slow,
]


@pytest.fixture(autouse=True)
def _s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moto's server, known to this process and those that it starts."""
    with s3_server(tmp_path / "moto.log") as server:
        for name, value in server.environ.items():
            monkeypatch.setenv(name, value)
        yield


def test_what_is_put_there_is_what_comes_back(tmp_path: Path) -> None:
    """In one part and in several, by name and by pattern; what cannot be had is named."""
    small, large = tmp_path / "a-1.jsonl", tmp_path / "a-2.jsonl"
    small.write_bytes(b'{"question": "Why?"}\n')
    large.write_bytes(os.urandom(20 * 2**20))

    for path in (small, large):
        assert not exists(f"s3://bucket/in/{path.name}")
        upload(path, f"s3://bucket/in/{path.name}")
        assert exists(f"s3://bucket/in/{path.name}")
    copies = download_all("s3://bucket/in/a-*", tmp_path / "copies")

    assert [copy.read_bytes() for copy in copies] == [small.read_bytes(), large.read_bytes()]
    assert download_all("s3://bucket/in/a-*", tmp_path / "copies") == copies
    for wrong, words in (("none", "no such file"), ("in", "it is a folder"), ("in/b-*", "no file has such a name")):
        with pytest.raises(UsageError, match=words):
            download_all(f"s3://bucket/{wrong}", tmp_path / "copies")
    with pytest.raises(UsageError, match="longer than"):
        download_all("s3://bucket/in/a-2.jsonl", tmp_path / "others", 1000)
    assert not list((tmp_path / "others").iterdir())
