"""TMPDIR is full, really: what happened is named as such, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, read_answers
from tests.tiny_disk import on_tiny_disk

COUNT = 300
ROW_BYTES = 4000


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short path: where a socket's would be too long, the fleet goes elsewhere, and finds room."""
    with tempfile.TemporaryDirectory(prefix="bf-test-", dir="/tmp") as made:
        yield Path(made)


def test_a_full_temporary_folder_is_named_and_the_same_command_resumes(tmp_path: Path) -> None:
    """At once where nothing fits, midway where Redis fills it; with room there, every question has a line."""
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    rows = [{"id": f"q{n}", "question": f"What is {n}?", "metadata": {"x": "x" * ROW_BYTES}} for n in range(COUNT)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "answers.jsonl")]
    command = [sys.executable, "-m", "batchfleet", "run", *files, "--engine", "stub", "--quiet"]

    def run(command: list[str], temporary: Path, patience_s: str = "60") -> tuple[int, str]:
        environ = os.environ | {"TMPDIR": str(temporary), "BATCHFLEET_REDIS_PATIENCE_S": patience_s}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=ROOT)  # noqa: S603
        return done.returncode, done.stderr

    at_once = run(on_tiny_disk(tiny, "4k", command), tiny)
    midway = run(on_tiny_disk(tiny, "512k", command), tiny, patience_s="5")
    with_room = run(command, tmp_path)

    assert at_once[0] == 2, at_once
    assert f"did not start: the disk of {tiny}" in at_once[1], at_once
    assert "is full; free some space, or have the folder elsewhere (TMPDIR)" in at_once[1]
    assert midway[0] == 3, midway
    assert "cannot write to its disk: make room where it keeps its data (TMPDIR" in midway[1]
    assert "the same command resumes the run" in midway[1]
    assert "Traceback" not in at_once[1] + midway[1]
    assert with_room[0] == 0, with_room
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(
        row["id"] for row in rows
    )
