"""What takes long before and after a run is said, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchfleet.runs import long_step
from batchfleet.runs.long_step import LongStep
from tests.processes import PATIENCE_S, ROOT


class Heard:
    """A stderr that tells when a line has come."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.text = ""
        self.has_line = threading.Event()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> None:
        self.text += text
        if "so far" in self.text:
            self.has_line.set()

    def flush(self) -> None:
        """Nothing is held back."""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_step_is_said(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> None:
    """With how far it is; on a terminal the line goes when the step is over."""
    heard = Heard(is_terminal=is_terminal)
    monkeypatch.setattr(long_step, "FIRST_S", 0.0)
    monkeypatch.setattr(sys, "stderr", heard)

    with LongStep("checking the questions", "rows", "nothing was submitted") as step:
        step(1_234_000)
        assert heard.has_line.wait(PATIENCE_S)

    assert "checking the questions: " in heard.text
    assert heard.text.endswith("\x1b[2K" if is_terminal else " so far\n")


def test_a_short_step_and_a_quiet_one_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Most steps are over in less than two seconds."""
    for quiet in (False, True):
        with LongStep("checking the questions", "rows", "nothing was submitted", quiet=quiet) as step:
            step(1)

    assert capsys.readouterr().err == ""


def test_a_pipe_that_gives_nothing_is_waited_for_aloud_and_ctrl_c_is_answered(tmp_path: Path) -> None:
    """The user sees what is waited for, and that nothing was submitted."""
    command = [sys.executable, "-m", "batchfleet", "run", "-", "-o", str(tmp_path / "a.jsonl"), "--engine", "stub"]
    with subprocess.Popen(  # noqa: S603 (our own command)
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
    ) as running:
        assert running.stderr is not None
        said = running.stderr.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()

    assert said == "reading standard input: 0.0 MB so far\n"
    assert rest == "batchfleet: interrupted while reading standard input; nothing was submitted\n"
    assert running.returncode == 130
    assert not list(tmp_path.iterdir())
