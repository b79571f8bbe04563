"""However a process ends, nothing that it started outlives it by more than five seconds.

Nothing else is touched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpu_worker.engines.vllm import watchdog
from gpu_worker.engines.vllm.tether import Tether, processes_below_me
from tests.processes import PATIENCE_S, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

ROOT = Path(__file__).parents[3]

OWNER = """
import os, subprocess, sys, time
from gpu_worker.engines.vllm.tether import Tether
tether = Tether()
tether.start()
pids = [tether.pid]
{body}
(tether.folder / "a-socket").touch()
print(*pids, flush=True)
time.sleep(600)
"""

A_CHILD = "pids.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
A_SESSION_LEADER = (
    "pids.append(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True).pid)"
)
A_STUBBORN_CHILD = """
stubborn = subprocess.Popen(
    [sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
     'print(1, flush=True); time.sleep(600)'],
    stdout=subprocess.PIPE,
)
stubborn.stdout.readline()
pids.append(stubborn.pid)
"""
A_FORKED_CHILD = """
child = os.fork()
if child == 0:
    time.sleep(600)
pids.append(child)
"""
A_GRANDCHILD = """
middle = subprocess.Popen(
    [sys.executable, '-c', "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); "
     "print(p.pid, flush=True); time.sleep(600)"],
    stdout=subprocess.PIPE,
)
pids += [middle.pid, int(middle.stdout.readline())]
"""


def wait_until_gone(pids: list[int]) -> None:
    """Return once none of them runs any more."""
    wait_until(lambda: not any(alive(pid) for pid in pids), f"{pids} are gone")


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def wait_for_a_look(guard: int) -> None:
    """Return when the watchdog has begun to read /proc, and has ended: the kernel counts what it reads.

    It does so however busy the machine is.
    """
    before = read_by(guard)
    wait_until(lambda: read_by(guard) > before, "the watchdog looks")
    while (seen := read_by(guard)) > before:
        before = seen
        time.sleep(watchdog.LOOK_EVERY_S / 3)


def read_by(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


@pytest.fixture
def an_owner() -> Iterator[Callable[[str], tuple[subprocess.Popen[str], list[int]]]]:
    """Starts an owner that starts what `body` says.

    Returns it, and the process ids of its watchdog and its children.
    """
    owners: list[subprocess.Popen[str]] = []
    everyone: list[int] = []

    def start(body: str) -> tuple[subprocess.Popen[str], list[int]]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        owner = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", OWNER.format(body=body)], stdout=subprocess.PIPE, text=True, env=environment
        )
        owners.append(owner)
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) >= 2, "the owner did not start"
        everyone.extend(pids)
        return owner, pids

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()
    wait_until_gone(everyone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("body", [A_CHILD, A_SESSION_LEADER, A_STUBBORN_CHILD, A_FORKED_CHILD, A_GRANDCHILD])
def test_nothing_outlives_its_owner(
    an_owner: Callable[[str], tuple[subprocess.Popen[str], list[int]]], body: str, number: signal.Signals
) -> None:
    """The children are in sessions of their own, ignore SIGTERM, were only forked, or have children themselves.

    The owner is killed at once, before anyone could look.
    """
    owner, pids = an_owner(body)

    owner.send_signal(number)

    owner.wait(PATIENCE_S)
    wait_until_gone(pids)


def test_an_orphan_is_known_from_before(an_owner: Callable[[str], tuple[subprocess.Popen[str], list[int]]]) -> None:
    """A grandchild without the mark, whose parent died first, is remembered from when it still had one."""
    body = A_GRANDCHILD.replace("['sleep', '600']", "['sleep', '600'], env={}")
    owner, (guard, middle, grandchild) = an_owner(body)
    for _ in range(2):
        wait_for_a_look(guard)

    os.kill(middle, signal.SIGKILL)
    owner.kill()

    wait_until_gone([guard, middle, grandchild])


def test_no_file_of_theirs_outlives_it_either(
    an_owner: Callable[[str], tuple[subprocess.Popen[str], list[int]]],
) -> None:
    """The watchdog knows the folder that they were given, and removes it with what is in it."""
    owner, (guard, child) = an_owner(A_CHILD)
    words = Path(f"/proc/{guard}/cmdline")
    # A program that has just begun has none yet.
    wait_until(words.read_bytes, "the watchdog's arguments")
    folder = Path(os.fsdecode(words.read_bytes().split(b"\0")[-2]))
    assert (folder / "a-socket").exists()

    owner.kill()

    wait_until_gone([guard, child])
    assert not folder.exists()


def test_a_stranger_is_left_alone(an_owner: Callable[[str], tuple[subprocess.Popen[str], list[int]]]) -> None:
    """Though it is in the owner's process group and session, as everything started by one shell script is."""
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        owner, pids = an_owner(A_CHILD)

        owner.kill()

        wait_until_gone(pids)
        assert stranger.poll() is None
        stranger.kill()


def test_another_process_of_the_same_number_is_another_process() -> None:
    """Numbers are used again; start times tell the processes apart."""
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        (known,) = (process for process in processes_below_me() if process.pid == child.pid)

        watchdog.end([known._replace(started=known.started - 1)], grace_s=0)

        assert child.poll() is None
        assert watchdog.living([known]) == {known}
        child.kill()


def test_letting_go_ends_the_watchdog_and_nothing_else() -> None:
    """A worker that stops in order has stopped its engine itself."""
    tether = Tether()
    tether.start()
    guard, folder = tether.pid, tether.folder
    assert folder.is_dir()
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        tether.stop()
        tether.stop()

        assert guard is not None
        assert not alive(guard)
        assert not folder.exists()
        assert child.poll() is None
        child.kill()


def test_a_watchdog_that_was_killed_is_replaced() -> None:
    """By the worker's next check."""
    tether = Tether()
    tether.start()
    first = tether.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until_gone([first])

    tether.check()

    assert tether.pid != first
    tether.stop()
