"""The programs in docs/python.md are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import PATIENCE_S, ROOT, Processes


def programs() -> list[str]:
    """The code blocks of the page."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n|^\n(?=\n*    ))+", text, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks if "batchfleet" in block]


def test_every_program_on_the_page_runs(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """Each ends well and says nothing on stderr, with only the address of Redis changed."""
    found = programs()
    assert len(found) == len([code for code in found if "import" in code]) >= 8
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Processes(redis_server.url, tmp_path) as processes:
        processes.batcher()
        processes.worker()
        for code in found:
            program = code.replace("redis://localhost", redis_server.url)
            done = subprocess.run(  # noqa: S603 (ours)
                [sys.executable, "-c", program],
                env=env,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert done.returncode == 0, f"{code}\n{done.stderr}"
            assert not done.stderr or "left run sums before its end" in done.stderr, done.stderr
