"""What becomes of a comparison with other queues where one of them cannot be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.queue_comparison import install
from wire.errors import UsageError


def test_only_ray_may_be_missing(tmp_path: Path) -> None:
    """It is large and not there for every machine.

    Without any other, the comparison would be another one, and that is an error.
    """
    (tmp_path / "cache").write_text("a file where a folder belongs")
    said: list[str] = []

    assert install(["none", "ray-actors", "ray-data"], tmp_path / "cache", said.append) == {}
    assert [line for line in said if line.startswith("left out: cannot install ray-actors into ")]
    with pytest.raises(UsageError, match=r"cannot install huey into .*; leave it out with --peers"):
        install(["huey"], tmp_path / "cache", said.append)
