"""The processes of a fleet, as the terminal and the kernel see them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from batchfleet.supervisor import die_with_parent
from batchfleet.supervisor.processes import last_lines, spawn, stop_all
from tests.processes import PATIENCE_S, ROOT, wait_until

PARENT = """
import os, sys, time
from pathlib import Path
from batchfleet.supervisor.processes import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_shares_our_session_but_not_our_process_group(tmp_path: Path) -> None:
    """Ctrl-C in the terminal does not reach it, and the kernel schedules the whole fleet as one group."""
    child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, tmp_path / "log")
    try:
        assert os.getsid(child.pid) == os.getsid(0)
        assert os.getpgid(child.pid) == child.pid
    finally:
        stop_all([child], grace_s=10.0)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """However that ends: SIGKILL lets it say no word."""
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(  # noqa: S603 (ours)
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone")


def test_a_child_whose_parent_is_gone_before_it_could_ask_dies_at_once() -> None:
    """The kernel tells of a death only whoever asked for it before."""
    nobody = [
        sys.executable,
        "-I",
        "-S",
        die_with_parent.__file__,
        str(os.getpid() + 1),
        sys.executable,
        "-c",
        "print('alive')",
    ]

    ended = subprocess.run(nobody, capture_output=True, timeout=PATIENCE_S, check=False)  # noqa: S603 (ours)

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")


def test_a_program_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    """In its log, as it would by itself."""
    child = spawn([str(tmp_path / "nowhere")], os.environ, tmp_path / "log")

    assert child.wait(PATIENCE_S) == die_with_parent.NOT_STARTED
    assert (
        last_lines(tmp_path / "log")
        == f"    batchfleet: {tmp_path}/nowhere cannot be started: No such file or directory"
    )


def test_why_a_program_ends_is_shown_whole_and_alone(tmp_path: Path) -> None:
    """However many lines that takes, the log before it tells nothing more."""
    reason = ["batchfleet: vLLM did not start", "What to change: this", *(f"  | line {number}" for number in range(12))]
    (tmp_path / "log").write_text("\n".join(["INFO starting", "batchfleet: warning: never mind", *reason]))

    assert last_lines(tmp_path / "log").splitlines() == [f"    {line}" for line in reason]


def test_a_program_that_was_killed_leaves_the_end_of_its_log(tmp_path: Path) -> None:
    """It could not say why."""
    (tmp_path / "log").write_text(
        "\n".join(["batchfleet: warning: never mind", *(f"INFO line {number}" for number in range(30))])
    )

    assert last_lines(tmp_path / "log", count=2) == "    INFO line 28\n    INFO line 29"
    assert last_lines(tmp_path / "nowhere") == "    (it said nothing)"


def test_a_complaint_that_cannot_be_written_keeps_its_exit_code() -> None:
    """The disk that is full may be the one of the log: 1 would mean that every question has its line."""
    with Path("/dev/full").open("w") as full:
        command = [
            sys.executable,
            "-m",
            "batchfleet",
            "submit",
            str(ROOT / "examples" / "questions.jsonl"),
            "-o",
            "/proc/no/such",
            "--redis",
            "unix:///no/such",
        ]
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False)  # noqa: S603 (ours)
    assert done.returncode == 3
