"""The processes of a fleet, as the terminal and the kernel see them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fleet.processes import spawn, stop_all


def test_a_child_shares_our_session_but_not_our_process_group(tmp_path: Path) -> None:
    """Ctrl-C in the terminal does not reach it, and the kernel schedules the whole fleet as one group."""
    child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path / "log")
    try:
        assert os.getsid(child.pid) == os.getsid(0)
        assert os.getpgid(child.pid) == child.pid
    finally:
        stop_all([child], grace_s=10.0)
