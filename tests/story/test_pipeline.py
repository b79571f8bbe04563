"""Answers of one run as questions of the next: the example of generate, judge and filter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import PATIENCE_S, ROOT, TREES, read_answers


def test_the_example_generates_judges_and_filters(tmp_path: Path) -> None:
    """Each judgement is of the draft with its id and has it beside it; the filter lets through what it should."""
    program = tmp_path / "bin" / "batchfleet"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchfleet "$@"\n')
    program.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": TREES, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    script = [str(ROOT / "examples" / "pipeline.sh"), str(tmp_path), '"water" in text']

    done = subprocess.run(  # noqa: S603 (ours)
        script, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert done.returncode == 0, done.stderr
    drafts, judged, good = (
        {line["id"]: line for line in read_answers(tmp_path / f"{name}.jsonl")} for name in ("drafts", "judged", "good")
    )
    assert drafts.keys() == judged.keys()
    assert all(line["metadata"]["previous"]["text"] == drafts[name]["text"] for name, line in judged.items())
    assert good == {name: line for name, line in judged.items() if "water" in line["text"]}
    assert 0 < len(good) < len(judged)
