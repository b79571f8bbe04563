"""Tests see neither what the user has set nor what the user has running."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

from batchfleet.supervisor.state_folder import default_folder
from tests.processes import PATIENCE_S, ROOT


def test_tests_have_a_home_of_their_own() -> None:
    """An `up` of the user's keeps its queue in a folder of the user's home, where other commands find it."""
    users = Path(pwd.getpwuid(os.getuid()).pw_dir)

    assert not default_folder(os.environ).is_relative_to(users)
    assert Path(os.environ["HOME"]) in Path(tempfile.mkdtemp()).parents


def test_nothing_of_the_users_reaches_tests(tmp_path: Path) -> None:
    """Whatever is set where they are started, and however deep.

    Only which server to start and which GPUs there are is kept.
    """
    script = (
        "import os, tests.conftest, tempfile; print(*sorted(n for n in os.environ if n.startswith('BATCHFLEET_'))); "
        "print(os.environ['HOME'])"
    )
    users = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
        "BATCHFLEET_REDIS_URL": "redis://elsewhere/0",
        "BATCHFLEET_REDIS_SERVER": "/opt/redis",
        "BATCHFLEET_GPUS": "none",
        "BATCHFLEET_NO_SUCH_SETTING": "1",
    }

    said = subprocess.run(  # noqa: S603 (ours)
        [sys.executable, "-c", script],
        env={**os.environ, **users},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    ).stdout.splitlines()

    assert said[0] == "BATCHFLEET_GPUS BATCHFLEET_REDIS_SERVER"
    assert not Path(said[1]).is_relative_to(tmp_path)
    assert not Path(said[1]).exists()
