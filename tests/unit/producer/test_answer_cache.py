"""The folder of answers that later runs may use."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from producer.reuse.cache import FILE, AnswerCache
from wire.errors import UsageError

MIB = 2**20


def test_a_cache_stays_within_its_bounds(tmp_path: Path) -> None:
    """What was used least recently goes; what is there under a key stays; two may have it open."""
    with AnswerCache(tmp_path, 10_000) as cache, AnswerCache(tmp_path, 10_000) as other:
        for number in range(8):
            cache.put("run-1", [(b"%d" % number, "m", b'{"n": %d}' % number + b" " * 1000)])
        cache.put("run-2", [(b"7", "m", b'{"n": "other"}')])
        other.used([b"0"])
        other.put("run-2", [(b"8", "m", b"{}" + b" " * 1000), (b"9", "m", b"{}" + b" " * 1000)])

        assert cache.stats().bytes <= 9_000
        assert cache.get(b"7") == ("run-1", {"n": 7})
        assert cache.get(b"0") is not None
        assert cache.get(b"1") is None
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_what_is_no_cache_is_named(tmp_path: Path) -> None:
    """Never overwritten, never believed."""
    (tmp_path / FILE).write_bytes(b"something else, and long enough to be read as a database" * 99)
    with pytest.raises(UsageError, match=r"cannot use the cache .*file is not a database"):
        AnswerCache(tmp_path, MIB)
    with AnswerCache(tmp_path / "other", MIB) as cache:
        cache.put("run-1", [(b"1", "m", b"no JSON")])
        assert cache.get(b"1") is None


def test_stats_and_prune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cache stats` changes nothing; `cache prune` drops what it is told to, and nothing without being told."""
    with AnswerCache(tmp_path, MIB) as cache:
        cache.put("run-1", [(b"%d" % number, "m" if number else "n", b"{}") for number in range(5)])

    def told(*arguments: str) -> dict[str, object]:
        assert main(["cache", *arguments, str(tmp_path), "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    assert told("stats")["models"] == {"m": 4, "n": 1}
    assert told("prune", "--model", "n")["dropped"] == 1
    assert told("prune", "--unused-days", "1")["dropped"] == 0
    assert told("prune", "--max-bytes", "1K")["answers"] == 4
    assert told("prune", "--all")["answers"] == 0
    for wrong in (["prune"], ["stats", "--all"]):
        assert main(["cache", *wrong, str(tmp_path)]) == 2
    assert main(["cache", "stats", str(tmp_path / "nowhere")]) == 2
