"""What lies in the folder from which somebody asks is not executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import PATIENCE_S, TREES, read_answers, write_questions

NAMES = (
    "random",
    "queue",
    "redis",
    "orjson",
    "msgspec",
    "rq",
    "jinja2",
    "uvloop",
    "secrets",
    "wire",
    "fleet",
    "producer",
    "gpu_worker",
    "batcher",
)
"""Modules that programs of the fleet import, of Python, of others and of our own."""


def test_files_named_like_modules_are_not_run(tmp_path: Path) -> None:
    """Neither by the command nor by a process that it starts, and the questions are answered."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'hit')!r}, 'a').write('{name}')\nraise SystemExit(7)\n"
        )
    ids = write_questions(tmp_path / "questions.jsonl", 20)
    # As the installed command, whose own folder is that of the environment.
    command = [
        sys.executable,
        "-P",
        "-m",
        "batchfleet",
        "run",
        "questions.jsonl",
        "-o",
        "answers.jsonl",
        "--engine",
        "stub",
    ]

    ended = subprocess.run(  # noqa: S603 (ours)
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": TREES},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert not (tmp_path / "hit").exists()
    assert ended.returncode == 0, ended.stderr
    assert sorted(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == sorted(ids)
